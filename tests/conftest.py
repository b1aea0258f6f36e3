"""Before torch and NumPy load: one thread each.

pytest runs in a process for each core, on models so small that handing work to other threads takes
four times the work itself.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
