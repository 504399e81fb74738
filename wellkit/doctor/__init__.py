"""What this machine has: versions, devices, the Hub, disks, caches and trees; what is broken and what to do next."""
