package redisstore

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"regexp"
	"time"
)

// The file of a backup is lines of JSON: a header, the tenants in the order of
// their ids, and a trailer with their number and the SHA-256 of all before it.
// The records are sealed as they are in Redis. The sum is there for accidents: a
// record that somebody has made, or moved to another id, does not open.

const (
	backupFormat  = "tokenbroker-tenants"
	backupVersion = 1
	trailerStart  = `{"count":`
)

// Errors of ReadBackup. They quote nothing of what was read.
var (
	// ErrNoBackup: what was read does not begin as a backup does.
	ErrNoBackup = errors.New("this is no backup of tenants")
	// ErrNewerBackup: a later version of this program has written it.
	ErrNewerBackup = fmt.Errorf("the backup has a newer format than this program reads (%d)", backupVersion)
	// ErrDamagedBackup: it is not what was written.
	ErrDamagedBackup = errors.New("the backup is damaged")
)

type backupHeader struct {
	Format   string    `json:"format"`
	Version  int       `json:"version"`
	Created  time.Time `json:"created"`
	Prefix   string    `json:"prefix"`   // of the keys that it was read from
	Registry string    `json:"registry"` // its name; empty: it had none
}

type backupRecord struct {
	ID     string `json:"id"`
	Record []byte `json:"record"`
}

// tenantID is the form of ids in the API. What has another in Redis was not put
// there by a broker.
var tenantID = regexp.MustCompile(`^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$`)

// Backup is a whole backup, as it was written. Its records are sealed.
type Backup struct {
	header  backupHeader
	tenants []backupRecord
}

// ReadBackup reads a backup to the end of r. It returns nothing unless all of it
// is there and as it was written. Errors are ErrNoBackup, ErrNewerBackup,
// ErrDamagedBackup, or those of r.
func ReadBackup(r io.Reader) (*Backup, error) {
	lines, sum := bufio.NewReader(r), sha256.New()
	line, err := readLine(lines)
	if err != nil && !errors.Is(err, ErrDamagedBackup) {
		return nil, err
	}
	b := &Backup{}
	if err != nil || json.Unmarshal(line, &b.header) != nil || b.header.Format != backupFormat || b.header.Version < 1 {
		return nil, ErrNoBackup
	}
	if b.header.Version > backupVersion {
		return nil, ErrNewerBackup
	}
	for after := ""; ; {
		_, _ = sum.Write(line) // Never fails, see hash.Hash.
		if line, err = readLine(lines); err != nil {
			return nil, err
		}
		if bytes.HasPrefix(line, []byte(trailerStart)) {
			break
		}
		var next backupRecord
		// That the order is kept means that no tenant is there twice.
		if json.Unmarshal(line, &next) != nil || !tenantID.MatchString(next.ID) || next.ID <= after {
			return nil, fmt.Errorf("%w: its tenant %d is none", ErrDamagedBackup, len(b.tenants)+1)
		}
		after = next.ID
		b.tenants = append(b.tenants, next)
	}
	if !bytes.Equal(line, trailer(len(b.tenants), sum)) {
		return nil, fmt.Errorf("%w: its sum or its count is another", ErrDamagedBackup)
	}
	switch _, err := lines.ReadByte(); {
	case err == nil:
		return nil, fmt.Errorf("%w: more follows its end", ErrDamagedBackup)
	case !errors.Is(err, io.EOF):
		return nil, err
	}
	return b, nil
}

// readLine returns the next line with its end.
func readLine(r *bufio.Reader) ([]byte, error) {
	line, err := r.ReadBytes('\n')
	if errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: its end is missing", ErrDamagedBackup)
	}
	return line, err
}

// trailer returns the last line of a backup.
func trailer(count int, sum hash.Hash) []byte {
	return fmt.Appendf(nil, "%s%d,\"sha256\":\"%x\"}\n", trailerStart, count, sum.Sum(nil))
}

// backupWriter writes a backup: newBackupWriter, add for each tenant, end. After
// an error, what was written is none.
type backupWriter struct {
	w     *bufio.Writer
	sum   hash.Hash
	count int
}

func newBackupWriter(w io.Writer, h backupHeader) (*backupWriter, error) {
	b := &backupWriter{w: bufio.NewWriter(w), sum: sha256.New()}
	h.Format, h.Version = backupFormat, backupVersion
	return b, b.line(h)
}

// add writes a tenant, whose id must be behind the one before.
func (b *backupWriter) add(id, record string) error {
	b.count++
	return b.line(backupRecord{id, []byte(record)})
}

func (b *backupWriter) end() error {
	_, err := b.w.Write(trailer(b.count, b.sum))
	return errors.Join(err, b.w.Flush())
}

func (b *backupWriter) line(v any) error {
	line, err := json.Marshal(v)
	if err != nil {
		return err
	}
	line = append(line, '\n')
	_, _ = b.sum.Write(line) // Never fails, see hash.Hash.
	_, err = b.w.Write(line)
	return err
}
