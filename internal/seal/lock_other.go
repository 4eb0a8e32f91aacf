//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package seal

// lock does nothing: on this system nobody keeps two changes apart.
func lock(string) (unlock func(), err error) { return func() {}, nil }
