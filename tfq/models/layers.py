"""Layers that tf_keras lacks and that a flat graph needs: one small stateless class per operation."""

from __future__ import annotations
