package audit

import (
	"bytes"
	"errors"
	"os"
	"strings"
)

// endSize is how far from its end a file is looked at: more than a crash mostly
// leaves behind the last record.
const endSize = 4 << 20

var (
	errNoAudit = errors.New("it is no audit log: move it away, or name another")
	errNoChain = errors.New("its last record was changed so that none can follow it: move the file away")
)

// ending is how a file ends.
type ending struct {
	head
	found   bool   // head is the last record of the file
	changed bool   // and it is not as it was written
	torn    []byte // what is behind it: the rest of a line after a crash
}

// readEnd reads how a file ends that has size bytes.
//
// A last record that was changed is gone on from as it is, so that Verify finds it
// for ever, and nobody who can edit the file has the broker not start.
func readEnd(f *os.File, size int64) (ending, error) {
	text := make([]byte, min(size, endSize))
	if _, err := f.ReadAt(text, size-int64(len(text))); err != nil {
		return ending{}, err
	}
	for end := len(text); end > 0; {
		begin := bytes.LastIndexByte(bytes.TrimSuffix(text[:end], []byte("\n")), '\n') + 1
		l, _, k := parse(bytes.TrimSuffix(text[begin:end], []byte("\n")))
		switch {
		case k == changed && l.Chain == "":
			return ending{}, errNoChain
		case k == changed || k == sound:
			return ending{headOf(l), true, k == changed, text[end:]}, nil
		}
		end = begin
	}
	// A process may have crashed while it wrote the first line of all.
	begins := strings.HasPrefix(string(text), lineStart) || strings.HasPrefix(lineStart, string(text))
	if int64(len(text)) < size || !begins {
		return ending{}, errNoAudit
	}
	return ending{torn: text}, nil
}
