"""Renders against held-out frames: metrics, protocol, pictures."""
