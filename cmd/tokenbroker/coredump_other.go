//go:build !linux

package main

// forbidCoreDumps does nothing: it is on Linux that the broker is run in production.
func forbidCoreDumps() error { return nil }
