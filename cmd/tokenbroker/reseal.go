package main

import (
	"context"
	"errors"
	"fmt"

	"smokeball.internal/tokenbroker/internal/redisstore"
	"smokeball.internal/tokenbroker/internal/seal"
)

type resealKeysetCommand struct {
	direct `embed:""`
}

// Run seals anew what is in Redis. Replicas may go on meanwhile.
func (c *resealKeysetCommand) Run(ctx context.Context, out output) error {
	keyset, err := seal.Load(ctx, c.KeysetFile)
	if err != nil {
		return fmt.Errorf("keyset: %w", err)
	}
	if s := keyset.Status(); s.Next != 0 {
		return fmt.Errorf("the last rotation of %s is not in effect yet: its key seals from %s on, and until then there is nothing to seal anew", c.KeysetFile, stamp(s.Since))
	}
	store, err := c.openWith(keyset, out)
	if err != nil {
		return err
	}
	defer func() { _ = store.Close() }()
	done, err := store.Reseal(ctx, redisstore.ResealOptions{})
	if errors.Is(err, redisstore.ErrNoRegistry) {
		return err
	}
	// Also after an error: some may be done.
	return errors.Join(tellResealed(out, done), err)
}

// tellResealed prints what was done. The error says that something is left.
func tellResealed(out output, done redisstore.Resealed) error {
	tellUnreadable(out, done)
	_, err := fmt.Fprintf(out.stdout, "sealed anew %d, up to date %d, unreadable %d\n", done.Anew, done.Current, len(done.Unreadable))
	switch {
	case err != nil:
		return err
	case len(done.Unreadable) > 0:
		return errors.New("not all could be opened: is this the keyset of the servers, with all its keys?")
	case done.Changed > 0:
		return fmt.Errorf("%d were changed by others each time: repeat this", done.Changed)
	}
	return nil
}

func tellUnreadable(out output, found redisstore.Resealed) {
	for _, record := range found.Unreadable {
		_, _ = fmt.Fprintf(out.stderr, "%s: %v\n", record.Name, record.Err)
	}
	if found.Strange > 0 {
		_, _ = fmt.Fprintf(out.stderr, "%d records that no broker has written are left as they are\n", found.Strange)
	}
}

type pruneKeysetCommand struct {
	direct `embed:""`
}

// Run removes keys that nothing needs any more.
func (c *pruneKeysetCommand) Run(ctx context.Context, out output) error {
	removed, err := seal.Prune(ctx, c.KeysetFile, func(keyset *seal.Keyset) error { return c.look(ctx, keyset, out) })
	if err != nil {
		return err
	}
	if len(removed) == 0 {
		_, err = fmt.Fprintf(out.stdout, "%s has one key only: there is nothing to remove\n", c.KeysetFile)
		return err
	}
	_, err = fmt.Fprintf(out.stdout, "removed %d from the keys of %s: give it to every replica. Backups and dumps from before open with a copy of the file from before only\n",
		len(removed), c.KeysetFile)
	return err
}

// look returns nil if everything in Redis is sealed with the key that stays.
func (c *pruneKeysetCommand) look(ctx context.Context, keyset *seal.Keyset, out output) error {
	store, err := c.openWith(keyset, out)
	if err != nil {
		return err
	}
	defer func() { _ = store.Close() }()
	found, err := store.Reseal(ctx, redisstore.ResealOptions{DryRun: true})
	if err != nil {
		return fmt.Errorf("nothing was removed: %w", err)
	}
	tellUnreadable(out, found)
	switch {
	case len(found.Unreadable) > 0:
		return fmt.Errorf("nothing was removed: %d records cannot be opened, even with the keys that would go", len(found.Unreadable))
	case found.Anew > 0:
		return fmt.Errorf("nothing was removed: %d records are sealed with keys that would go: run \"tokenbroker keyset reseal\" first", found.Anew)
	}
	return nil
}
