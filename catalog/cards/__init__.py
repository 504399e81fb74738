"""The cards that ship with wellkit, one YAML file each."""
