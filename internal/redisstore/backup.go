package redisstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// How many tenants are read with one command: Redis answers others in between.
	exportPage = 500
	// How many are written by one script, during which Redis does nothing else.
	restoreBatch = 100
)

// Errors of Export and Import.
var (
	// ErrNoRegistry: there is no registry under this prefix, or not any more.
	ErrNoRegistry = errors.New("there is no registry of tenants under this prefix")
	// ErrRegistryChanged: Redis lost its registry while it was read.
	ErrRegistryChanged = errors.New("the registry of tenants was lost or replaced while it was read")
	// ErrWrongKeyset: the keyset opens none of the records, and nothing was changed.
	ErrWrongKeyset = errors.New("the keyset opens none of the records: it is not the one that sealed them")
)

// Exported says what a backup has in it.
type Exported struct {
	// Tenants counts those in the backup.
	Tenants int
	// Unreadable are the ids of those among them that this keyset does not open.
	Unreadable []string
	// Strange counts what is among the records and is none, since no tenant can have
	// such an id. It is not in the backup.
	Strange int
}

// Export writes the registry to w as a backup, with the records sealed as they
// are; those that cannot be opened too. It keeps the ids in memory, and reads page
// by page. Each tenant is written as it is at one moment, but not all at the same:
// whoever is created or deleted meanwhile may be in the backup or not. After an
// error, what was written is no backup: it lacks its end.
func (s *Store) Export(ctx context.Context, w io.Writer) (Exported, error) {
	var done Exported
	name, err := s.registryName(ctx)
	if err != nil {
		return done, err
	}
	ids, err := s.recordIDs(ctx)
	if err != nil {
		return done, err
	}
	if name == "" && len(ids) == 0 {
		return done, ErrNoRegistry
	}
	file, err := newBackupWriter(w, backupHeader{Created: time.Now().UTC(), Prefix: s.prefix, Registry: name})
	if err != nil {
		return done, fmt.Errorf("write backup: %w", err)
	}
	for page := range slices.Chunk(ids, exportPage) {
		records, err := s.client.HMGet(ctx, s.recordsKey(), page...).Result()
		if err != nil {
			return done, fmt.Errorf("read tenants: %w", err)
		}
		for i, id := range page {
			record, ok := records[i].(string)
			switch {
			case !ok:
				continue // Deleted since its id was read.
			case !tenantID.MatchString(id):
				done.Strange++
				continue
			}
			if _, _, err := s.unseal(s.prefix, id, record); err != nil {
				done.Unreadable = append(done.Unreadable, id)
			}
			if err := file.add(id, record); err != nil {
				return done, fmt.Errorf("write backup: %w", err)
			}
			done.Tenants++
		}
	}
	// A Redis that is emptied, or starts anew, has no tenants, and no error either.
	if now, err := s.registryName(ctx); err != nil {
		return done, err
	} else if now != name {
		return done, ErrRegistryChanged
	}
	if err := file.end(); err != nil {
		return done, fmt.Errorf("write backup: %w", err)
	}
	return done, nil
}

// recordIDs returns the ids of all records, in order. A scan can return an id more
// than once, and returns all that are there from its begin to its end.
func (s *Store) recordIDs(ctx context.Context) ([]string, error) {
	var ids []string
	for cursor := uint64(0); ; {
		fields, next, err := s.client.HScan(ctx, s.recordsKey(), cursor, "", exportPage).Result()
		if err != nil {
			return nil, fmt.Errorf("read tenants: %w", err)
		}
		for pair := range slices.Chunk(fields, 2) {
			ids = append(ids, pair[0])
		}
		if cursor = next; cursor == 0 {
			break
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids), nil
}

// unseal opens the record of a tenant that was stored under prefix, which need not
// be this store's, and says where the tenant stands in the indexes.
func (s *Store) unseal(prefix, id, record string) (plain []byte, p places, err error) {
	etag, sealed := splitEtag(record)
	plain, err = s.keyset.Open([]byte(sealed), prefix+strings.TrimPrefix(s.tenantName(id), s.prefix))
	if err != nil {
		return nil, places{}, err
	}
	var r tenantRecord
	if json.Unmarshal(plain, &r) != nil || r.ID != id || r.Etag != etag {
		return nil, places{}, errMismatch // The reason would quote the record.
	}
	return plain, placesOf(r.tenant()), nil
}

// ImportOptions say what an import may do.
type ImportOptions struct {
	// Overwrite replaces tenants that are there in another version.
	Overwrite bool
	// DryRun changes nothing: the result is what would be done.
	DryRun bool
}

// Imported says what an import did. Each tenant of the backup is in one of these.
type Imported struct {
	// Created counts those that were not there.
	Created int
	// Same counts those that were there in the same version.
	Same int
	// Different are the ids of those that were there in another version: left as
	// they are, or, with Overwrite, replaced.
	Different []string
	// Unreadable are the ids of those that the keyset does not open. They are left out.
	Unreadable []string
	// OtherRegistry says that the registry has another name than that of the backup,
	// because it was begun anew: replicas that knew the old one go on taking it for
	// lost until they are restarted.
	OtherRegistry bool
}

// restorable is a tenant that can be written.
type restorable struct {
	id, record string // sealed for this store
	places     places
}

// Import puts the tenants of a backup into the registry. It opens all records
// before it writes the first; if the keyset opens none, the error is
// ErrWrongKeyset. What was stored under another prefix is sealed anew for this one
// and stays the same version.
//
// It writes batch by batch, each whole or not at all, and replicas hear of each
// tenant that is written. With another error than ErrWrongKeyset, some batches may
// be written; repeating the import does the rest. A tenant that was deleted since
// the backup was made is created again.
//
// A registry without a name, which is one that was lost, gets the one of the
// backup at the end: only then do replicas believe that what is missing was
// deleted. If records were left out as unreadable, it does not get it. At last,
// what was written is on disk, where the server can say so.
func (s *Store) Import(ctx context.Context, b *Backup, o ImportOptions) (Imported, error) {
	tenants, unreadable, err := s.restorable(b)
	if err != nil {
		return Imported{}, err
	}
	done := Imported{Unreadable: unreadable}
	for batch := range slices.Chunk(tenants, restoreBatch) {
		if err := s.restore(ctx, s.client, batch, "", o, &done); err != nil {
			return done, err
		}
	}
	if len(unreadable) == 0 && !o.DryRun {
		if err := s.finish(ctx, b.header.Registry); err != nil {
			return done, err
		}
	}
	name, err := s.registryName(ctx)
	done.OtherRegistry = name != "" && b.header.Registry != "" && name != b.header.Registry
	return done, err
}

// finish gives the registry its name, if it has none, and waits for the disk: the
// log has what was written before in front of it.
func (s *Store) finish(ctx context.Context, name string) error {
	err := s.durably(ctx, func(conn *redis.Conn) error {
		return s.restore(ctx, conn, nil, name, ImportOptions{}, &Imported{})
	})
	if err != nil {
		return fmt.Errorf("finish the import: %w", err)
	}
	return nil
}

// restorable opens the records of a backup and seals them for this store if they
// were another's. It returns the ids of those that the keyset does not open.
func (s *Store) restorable(b *Backup) (tenants []restorable, unreadable []string, err error) {
	for _, t := range b.tenants {
		record := string(t.Record)
		plain, places, err := s.unseal(b.header.Prefix, t.ID, record)
		if err != nil {
			unreadable = append(unreadable, t.ID)
			continue
		}
		if b.header.Prefix != s.prefix {
			sealed, err := s.keyset.Seal(plain, s.tenantName(t.ID))
			if err != nil {
				return nil, nil, fmt.Errorf("seal record: %w", err)
			}
			etag, _ := splitEtag(record)
			record = etag + "." + string(sealed)
		}
		tenants = append(tenants, restorable{t.ID, record, places})
	}
	if len(tenants) == 0 && len(unreadable) > 0 {
		return nil, nil, ErrWrongKeyset
	}
	return tenants, unreadable, nil
}

// restore writes a batch, and adds to done what was there before. A registry that
// has no name is given this one unless it is empty. This is the only place where
// an import writes.
func (s *Store) restore(ctx context.Context, conn redis.Scripter, batch []restorable, name string, o ImportOptions, done *Imported) error {
	args := []any{flag(o.Overwrite), flag(o.DryRun), changesKept, name}
	for _, t := range batch {
		args = append(args, t.id, t.record, flag(t.places.warm), t.places.secret)
	}
	found, err := restoreScript.Run(ctx, conn, s.registryKeys(), args...).Int64Slice()
	if err != nil {
		return fmt.Errorf("write tenants: %w", reduce(err))
	}
	if len(found) != len(batch) {
		return fmt.Errorf("write tenants: %d answers for %d tenants", len(found), len(batch))
	}
	for i, was := range found {
		switch was {
		case 0:
			done.Created++
		case 1:
			done.Same++
		default:
			done.Different = append(done.Different, batch[i].id)
		}
	}
	return nil
}

// flag is how the scripts are told yes and no.
func flag(yes bool) string {
	if yes {
		return "1"
	}
	return ""
}
