"""``python -m internvl_kernels.cli``"""

from __future__ import annotations

from . import main

main()
