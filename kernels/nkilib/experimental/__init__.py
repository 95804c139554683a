<<<<<<< ed6258e08755c21388404aee9c8754f058a33eb8
"""Kernels whose interface may change."""
=======
"""Kernels that the vendor lists as experimental."""
>>>>>>> 70a27531e134d31ea2b55cdbc455181f24177e0c
