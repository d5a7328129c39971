"""The other model servers: for each a program that serves the model, and the pins of its environment."""

from pathlib import Path

PROGRAMS = PINS = Path(__file__).parent
