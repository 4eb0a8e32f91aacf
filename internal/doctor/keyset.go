package doctor

import (
	"context"
	"errors"
	"io/fs"
	"time"

	"smokeball.internal/tokenbroker/internal/seal"
)

// keysetFile tells whether the keyset opens, and how it is.
func (e *examination) keysetFile(_ context.Context, r *report) {
	if e.Settings.KeysetFile == "" {
		r.skip("--keyset-file is not set")
		return
	}
	keyset, err := e.keyset()
	if refused := new(seal.KMSError); errors.As(err, &refused) {
		r.problem("Look at the key, its policy and the credentials of this machine in AWS; the server needs it when it starts and when the file changes.",
			"the KMS does not decrypt it: %v", err)
		return
	}
	if missing := new(fs.PathError); errors.As(err, &missing) {
		r.skip("it cannot be read: see files")
		return
	}
	if err != nil {
		r.problem(`"tokenbroker keyset show `+e.Settings.KeysetFile+`" must work; all replicas have the same file, and there should be a copy elsewhere.`, "%v", err)
		return
	}
	s := keyset.Status()
	if s.Next != 0 {
		r.warn("Give the file to every replica before that, then run \"tokenbroker keyset reseal\".",
			"a rotation is pending: key %d seals from %s on", s.Next, s.Since.UTC().Format(time.RFC3339))
	}
	where := ""
	if s.KMSKeyURI != "" {
		where = ", decrypted with " + s.KMSKeyURI
	}
	r.ok("it opens%s; of the keys in it (%d), %d seals", where, len(s.Keys), s.Seals)
}
