package main

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// forbidCoreDumps keeps the memory of this process, and with it secrets in plain
// text, off the disk when it crashes, and from debuggers of its own user. The limit
// alone would not do: where the kernel pipes core dumps to a program
// (/proc/sys/kernel/core_pattern, core(5)), it is not asked. What the process, root
// and the Go runtime read in /proc stays readable to them (PR_SET_DUMPABLE,
// prctl(2)).
func forbidCoreDumps() error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("limit of core dumps: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("core dumps: %w", err)
	}
	return nil
}
