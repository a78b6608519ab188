"""An installed LeRobot that decodes with millpond."""
