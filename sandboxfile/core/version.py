"""The version of the program: part of what a remembered build is remembered under."""

VERSION = "0.1.0"
