package redistest

import "syscall"

// dieWithParent lets the kernel end the server when the test binary is gone, so
// that also a panic or a kill of the tests leaves no server behind.
func dieWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
