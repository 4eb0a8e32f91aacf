package audit_test

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"smokeball.internal/tokenbroker/internal/audit"
)

func TestProbeWritesNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	there, missing := filepath.Join(dir, "audit.log"), filepath.Join(dir, "new.log")
	if err := os.WriteFile(there, []byte("torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	for sink, fine := range map[string]bool{
		"stdout": true, "none": true, "file:" + there: true, "file:" + missing: true, "syslog:tcp://" + l.Addr().String(): true,
		"file:" + dir: false, "file:" + filepath.Join(dir, "no", "audit.log"): false, "file:" + filepath.Join(there, "audit.log"): false, "file:/dev/null": false,
		"syslog:tcp://127.0.0.1:1": false, "printer": false,
	} {
		if err := audit.Probe(t.Context(), sink); (err == nil) != fine {
			t.Errorf("%s: %v", sink, err)
		}
	}
	if content, err := os.ReadFile(there); string(content) != "torn" {
		t.Errorf("the file is %q, %v", content, err)
	}
	if _, err := os.Stat(missing); err == nil {
		t.Error("a file was made")
	}
}
