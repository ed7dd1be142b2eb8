"""rfmdist: completion of huge, mostly unobserved matrices with linear Recursive Feature Machines."""
