package redisstore

import (
	"context"
	"fmt"
	"slices"

	"github.com/redis/go-redis/v9"
)

const (
	// How many records are read with one command, and written at a time.
	resealPage = 100
	// How often a record is read that somebody else changes each time.
	resealTries = 10
)

// ResealOptions say what a reseal may do.
type ResealOptions struct {
	// DryRun seals nothing: the result is what would be done.
	DryRun bool
}

// Resealed says what a reseal did, or found. Each record is in one of these.
type Resealed struct {
	// Anew counts those that were sealed anew, or would be.
	Anew int
	// Current counts those that the key that seals now had sealed.
	Current int
	// Unreadable are those that the keyset does not open.
	Unreadable []UnreadableRecord
	// Changed counts those that somebody else changed each time that they were read.
	Changed int
	// Strange counts what is among the tenants and is none, since no tenant can have
	// such an id: nobody asks for it.
	Strange int
}

// UnreadableRecord is one that the keyset does not open.
type UnreadableRecord struct {
	// Name is the tenant's, "tenants/ID", or the key of a token or a failure.
	Name string
	// Err says why.
	Err error
}

// Reseal seals anew, with the key of the keyset that seals now, whatever is sealed
// with another: tenants, tokens and failures. They stay what they are, tenants in
// their version and the others for as long as they have left, and nobody is told.
// It may be done while servers write, since it replaces only what is still what
// it has read; and again and again: after an error, or after ctx has ended, the
// next does the rest. It keeps the names of all records in memory.
//
// What servers write meanwhile is sealed with the key that seals for them: as
// long as one of them has an older one, there may be something left to do.
//
// At last, what it found or did with tenants is on disk, where the server can
// say so. Errors are ErrNoRegistry, ErrRegistryChanged, or say that Redis could not
// be asked.
func (s *Store) Reseal(ctx context.Context, o ResealOptions) (Resealed, error) {
	var done Resealed
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
	known := slices.DeleteFunc(ids, func(id string) bool { return !tenantID.MatchString(id) })
	done.Strange = len(ids) - len(known)
	if err := s.reseal(ctx, sealedTenants{s}, known, o, &done); err != nil {
		return done, fmt.Errorf("seal tenants anew: %w", err)
	}
	keys, err := s.expiringKeys(ctx)
	if err != nil {
		return done, fmt.Errorf("look for tokens with SCAN: %w", err)
	}
	if err := s.reseal(ctx, sealedTokens{s}, keys, o, &done); err != nil {
		return done, fmt.Errorf("seal tokens anew: %w", err)
	}
	err = s.durably(ctx, func(conn *redis.Conn) error {
		_, err := sealedTenants{s}.run(ctx, conn, nil)
		return err
	})
	if err != nil {
		return done, fmt.Errorf("finish the sealing: %w", err)
	}
	if now, err := s.registryName(ctx); err != nil {
		return done, err
	} else if now != name {
		return done, ErrRegistryChanged
	}
	return done, nil
}

// unsealed is a record that was opened.
type unsealed struct {
	place  string // that it is sealed for
	head   string // stands before what is sealed
	sealed string
	plain  []byte
}

// resealing is a record that is to take the place of what was read.
type resealing struct{ name, was, anew string }

// sealedRecords is a kind of records.
type sealedRecords interface {
	// title is what people call a record.
	title(name string) string
	// read returns the records that there are.
	read(ctx context.Context, names []string) (map[string]string, error)
	// open opens a record, and checks that it is what its place says.
	open(name, record string) (unsealed, error)
	// replace says for each whether it has taken its place.
	replace(ctx context.Context, all []resealing) (done []bool, err error)
}

func (s *Store) reseal(ctx context.Context, kind sealedRecords, names []string, o ResealOptions, done *Resealed) error {
	for page := range slices.Chunk(names, resealPage) {
		var err error
		for range resealTries {
			if page, err = s.resealOnce(ctx, kind, page, o, done); err != nil {
				return err
			}
			if len(page) == 0 {
				break
			}
		}
		done.Changed += len(page)
	}
	return nil
}

// resealOnce does it for each of some records, or returns its name: it has changed
// since it was read.
func (s *Store) resealOnce(ctx context.Context, kind sealedRecords, names []string, o ResealOptions, done *Resealed) (changed []string, err error) {
	records, err := kind.read(ctx, names)
	if err != nil {
		return nil, err
	}
	var all []resealing
	for _, name := range names {
		record, ok := records[name]
		if !ok {
			continue // Deleted or ended since its name was read.
		}
		opened, err := kind.open(name, record)
		switch {
		case err != nil:
			done.Unreadable = append(done.Unreadable, UnreadableRecord{kind.title(name), err})
		case s.keyset.Current([]byte(opened.sealed)):
			done.Current++
		case o.DryRun:
			done.Anew++
		default:
			anew, err := s.keyset.Seal(opened.plain, opened.place)
			if err != nil {
				return nil, fmt.Errorf("seal record: %w", err)
			}
			all = append(all, resealing{name, record, opened.head + string(anew)})
		}
	}
	if len(all) == 0 {
		return nil, nil
	}
	replaced, err := kind.replace(ctx, all)
	if err != nil {
		return nil, err
	}
	for i, ok := range replaced {
		if ok {
			done.Anew++
		} else {
			changed = append(changed, all[i].name)
		}
	}
	return changed, nil
}
