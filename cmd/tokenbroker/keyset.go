package main

import (
	"context"
	"fmt"

	"smokeball.internal/tokenbroker/internal/seal"
)

type keysetCommand struct {
	New    newKeysetCommand    `cmd:"" help:"Write a fresh keyset to FILE, readable by its owner only. An existing file is never written over."`
	Rotate rotateKeysetCommand `cmd:"" help:"Add a key to the keyset in FILE and seal with it from then on. What the other keys sealed stays readable."`
}

type newKeysetCommand struct {
	File string `arg:"" help:"The keyset file."`
}

// Run makes a keyset.
func (c *newKeysetCommand) Run(ctx context.Context, out output) error {
	if err := seal.Create(ctx, c.File, ""); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out.stdout, "wrote %s: give it to every replica, and keep a copy where it outlives them\n", c.File)
	return err
}

type rotateKeysetCommand struct {
	File string `arg:"" help:"The keyset file."`
}

// Run adds a key to a keyset.
func (c *rotateKeysetCommand) Run(ctx context.Context, out output) error {
	if _, err := seal.Rotate(ctx, c.File, 0); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out.stdout, "added a key to %s, which seals from now on: give it to every replica and restart them, and change no tenant until all have it (tokens may be bought twice meanwhile)\n", c.File)
	return err
}
