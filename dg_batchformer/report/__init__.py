"""From records to tables. Imports no torch: tables are built on login nodes too."""
