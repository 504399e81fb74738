"""How a collection lays out its arrays: formats map files to the common model of trajectories and fields."""
