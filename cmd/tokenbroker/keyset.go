package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"smokeball.internal/tokenbroker/internal/seal"
)

type keysetCommand struct {
	New    newKeysetCommand    `cmd:"" help:"Write a fresh keyset to FILE, readable by its owner only. An existing file is never written over."`
	Rotate rotateKeysetCommand `cmd:"" help:"Add a key to the keyset in FILE, which seals from a time on. What the other keys sealed stays readable."`
	Reseal resealKeysetCommand `cmd:"" help:"Seal anew, in Redis, what keys before the newest have sealed."`
	Prune  pruneKeysetCommand  `cmd:"" help:"Remove all keys but the newest from the keyset file, if nothing in Redis is sealed with them."`
	Show   showKeysetCommand   `cmd:"" help:"Say which keys are in FILE and what they do. Keys themselves are not shown."`
	Wrap   wrapKeysetCommand   `cmd:"" help:"Encrypt the keyset in FILE with a key of a KMS. The keys in it stay the same."`
}

const kmsHelp = `aws-kms://ARN of a key or an alias of AWS KMS, which must encrypt and decrypt whenever the file is read or changed. Region: the ARN's; credentials: the AWS SDK's settings.`

type newKeysetCommand struct {
	File      string `arg:"" help:"The keyset file."`
	KMSKeyURI string `name:"kms-key-uri" env:"-" placeholder:"URI" help:"Encrypt the file with a KMS: ${kms_help}"`
}

// Run makes a keyset.
func (c *newKeysetCommand) Run(ctx context.Context, out output) error {
	if err := seal.Create(ctx, c.File, c.KMSKeyURI); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out.stdout, "wrote %s: give it to every replica, and keep a copy where it outlives them\n", c.File)
	return err
}

type rotateKeysetCommand struct {
	File        string        `arg:"" help:"The keyset file."`
	EffectiveIn time.Duration `name:"effective-in" env:"-" default:"1h" placeholder:"DURATION" help:"When the key begins to seal: in longer than it takes to give the file to every replica. 0s: at once. Default ${default}."`
}

// Run adds a key to a keyset.
func (c *rotateKeysetCommand) Run(ctx context.Context, out output) error {
	effective, err := seal.Rotate(ctx, c.File, c.EffectiveIn)
	if err != nil {
		return err
	}
	when, until := "from "+stamp(effective)+" on", "give the file to every replica before that"
	if c.EffectiveIn == 0 {
		when, until = "from now on", "what it seals is refused by replicas that do not have the file yet"
	}
	_, err = fmt.Fprintf(out.stdout, "added a key to %s, which seals %s: %s; then run \"tokenbroker keyset reseal\"\n", c.File, when, until)
	return err
}

type showKeysetCommand struct {
	File string `arg:"" help:"The keyset file."`
}

// Run says what is in a keyset.
func (c *showKeysetCommand) Run(ctx context.Context, out output) error {
	keyset, err := seal.Load(ctx, c.File)
	if err != nil {
		return err
	}
	if open, err := seal.WorldReadable(c.File); err == nil && open {
		_, _ = fmt.Fprintf(out.stderr, "%s may be read by everybody on this machine\n", c.File)
	}
	s := keyset.Status()
	var said strings.Builder
	said.WriteString("KEY         WHAT IT DOES\n")
	for _, id := range s.Keys {
		does := "opens"
		switch {
		case id == s.Next:
			does = "opens, and seals from " + stamp(s.Since) + " on"
		case id == s.Seals && s.Next != 0:
			does = "opens, and seals until " + stamp(s.Since)
		case id == s.Seals && !s.Since.IsZero():
			does = "opens, and seals since " + stamp(s.Since)
		case id == s.Seals:
			does = "opens and seals"
		}
		_, _ = fmt.Fprintf(&said, "%-10d  %s\n", id, does)
	}
	if s.KMSKeyURI != "" {
		_, _ = fmt.Fprintf(&said, "encrypted with %s\n", s.KMSKeyURI)
	}
	_, err = io.WriteString(out.stdout, said.String())
	return err
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

type wrapKeysetCommand struct {
	File      string `arg:"" help:"The keyset file."`
	KMSKeyURI string `name:"kms-key-uri" env:"-" required:"" placeholder:"URI" help:"${kms_help}"`
}

// Run encrypts a keyset.
func (c *wrapKeysetCommand) Run(ctx context.Context, out output) error {
	if err := seal.Wrap(ctx, c.File, c.KMSKeyURI); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out.stdout, "encrypted %s: give it to every replica, and delete the copies from before, which open the same without the KMS\n", c.File)
	return err
}
