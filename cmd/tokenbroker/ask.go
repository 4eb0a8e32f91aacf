package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"

	"smokeball.internal/tokenbroker/internal/secret"
)

// maxSecretFile is more than any secret has, and a line end.
const maxSecretFile = 4 << 10

// misused says what is missing on the command line.
func misused(out output, what string) error {
	_, _ = fmt.Fprintf(out.stderr, "tokenbroker: %s\n", what)
	return exit(2)
}

// onTerminal says whether there is somebody to ask.
func onTerminal() bool { return term.IsTerminal(int(os.Stdin.Fd())) }

// readSecret reads a secret from a file, or with path "-" from standard input: from
// a terminal without echo. A line end behind it is no part of it. what names it in
// questions and errors, which do not quote it.
func readSecret(ctx context.Context, out output, what, path string) (secret.Text, error) {
	if path == "-" && onTerminal() {
		return askSecret(ctx, out, what)
	}
	in := os.Stdin
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return secret.Text{}, fmt.Errorf("%s: %w", what, err)
		}
		defer func() { _ = f.Close() }()
		in = f
	}
	content, err := io.ReadAll(io.LimitReader(in, maxSecretFile+1))
	switch {
	case err != nil:
		return secret.Text{}, fmt.Errorf("%s: %w", what, err)
	case len(content) > maxSecretFile:
		return secret.Text{}, fmt.Errorf("%s: there are more than %d bytes", what, maxSecretFile)
	}
	text := strings.TrimRight(string(content), "\r\n")
	if text == "" {
		return secret.Text{}, fmt.Errorf("%s: there is nothing in it", what)
	}
	return secret.New(text), nil
}

// askSecret asks on the terminal, which shows nothing of the answer. The terminal is
// as before when it returns, also when ctx ends meanwhile.
func askSecret(ctx context.Context, out output, what string) (secret.Text, error) {
	fd := int(os.Stdin.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return secret.Text{}, fmt.Errorf("%s: %w", what, err)
	}
	_, _ = fmt.Fprintf(out.stderr, "%s: ", what)
	defer func() { _, _ = fmt.Fprintln(out.stderr) }()
	type answer struct {
		text []byte
		err  error
	}
	answered := make(chan answer, 1)
	go func() {
		text, err := term.ReadPassword(fd)
		answered <- answer{text, err}
	}()
	select {
	case a := <-answered:
		if a.err != nil {
			return secret.Text{}, fmt.Errorf("%s: %w", what, a.err)
		}
		return secret.New(string(a.text)), nil
	case <-ctx.Done():
		_ = term.Restore(fd, before)
		return secret.Text{}, errors.New("interrupted")
	}
}

// confirm asks for a word on the terminal and says whether it was given.
func confirm(ctx context.Context, out output, question, word string) bool {
	_, _ = fmt.Fprintf(out.stderr, "%s Type %q to go on: ", question, word)
	answered := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(os.Stdin).ReadString('\n')
		answered <- strings.TrimSpace(line)
	}()
	select {
	case said := <-answered:
		return said == word
	case <-ctx.Done():
		_, _ = fmt.Fprintln(out.stderr)
		return false
	}
}
