//go:build !unix

package audit

// mayWrite does not know where rights are of another kind.
func mayWrite(string) error { return nil }
