"""What is kept of a request and of a level: samples, outcomes, histograms, the recorder."""
