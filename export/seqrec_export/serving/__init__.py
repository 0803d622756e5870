"""Triton as a supervised process."""
