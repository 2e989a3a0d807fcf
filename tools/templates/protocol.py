"""my-protocol: the conditions of a paper (Author et al., 2030)."""

from pathlib import Path

FILE = Path(__file__).with_name("my_protocol.yaml")
PROTOCOLS = {"my-protocol": FILE}
