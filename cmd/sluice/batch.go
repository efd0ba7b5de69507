// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"sluice/api"
)

// batch is one run of -batch. Its changes are one transaction, or several if there
// are shows between them: a show tells what the changes before it made.
type batch struct {
	c       *cli
	name    string
	nouns   map[string]*noun // by the words that were met
	pending []step           // changes that the daemon wasn't told yet
	failed  error            // with -force: the first fault
}

// runBatch reads the whole file before it does anything, so that a line that can't
// be understood leaves everything as it was.
func (c *cli) runBatch(ctx context.Context) error {
	in, err := c.open(c.batch)
	if err != nil {
		return err
	}
	defer in.Close()
	b := &batch{c: c, name: c.batch, nouns: map[string]*noun{}}
	steps, err := b.read(in)
	if err != nil {
		return err
	}
	for i := range steps {
		if err := b.step(ctx, &steps[i]); err != nil {
			return err
		}
	}
	if err := b.flush(ctx); err != nil {
		return err
	}
	return b.failed
}

// open opens a file, or standard input for -.
func (c *cli) open(name string) (io.ReadCloser, error) {
	if name == "-" {
		return io.NopCloser(c.in), nil
	}
	return os.Open(name)
}

// read understands all lines.
func (b *batch) read(in io.Reader) ([]step, error) {
	lines := newBatchReader(in)
	var steps []step
	changes := 0 // since the last show
	for {
		words, err := lines.next()
		if errors.Is(err, io.EOF) {
			return steps, nil
		}
		if err != nil {
			// Also with -force: what follows isn't what its writer meant.
			return nil, b.tell(err, lines.line)
		}
		s, err := b.understand(words)
		if err == nil && s.verb.does != change {
			changes = -1
		}
		if changes++; changes > api.MaxCommands {
			return nil, usagef("%s:%d: more than %d changes in one transaction", b.name, lines.line, api.MaxCommands)
		}
		if err == nil {
			s.line = lines.line
			steps = append(steps, s)
		} else if err := b.fault(err, lines.line); err != nil {
			return nil, err
		}
	}
}

// understand reads the words of a line. The family may lead them, which ip(8) has
// in front of the batch only.
func (b *batch) understand(words []string) (step, error) {
	family := b.c.family
	if f, ok := familyOf(words[0]); ok && len(words) > 1 {
		family, words = f, words[1:]
	}
	n := b.noun(words[0])
	if n == nil {
		return step{}, usagef(`object %q is unknown, try "sluice help"`, words[0])
	}
	s, err := n.step(words[1:])
	s.family = family
	return s, err
}

// noun returns the noun that a word names; nil: none.
func (b *batch) noun(word string) *noun {
	if n := b.nouns[word]; n != nil {
		return n
	}
	n, ok := findNoun(word)
	if !ok {
		return nil
	}
	b.nouns[word] = &n
	return &n
}

// familyOf returns the family that a word says, -4 or -6.
func familyOf(word string) (string, bool) {
	switch word {
	case "-4":
		return "inet", true
	case "-6":
		return "inet6", true
	}
	return "", false
}

// step does a step, or keeps it for the transaction.
func (b *batch) step(ctx context.Context, s *step) error {
	if s.verb.does == change {
		b.pending = append(b.pending, *s)
		return nil
	}
	if err := b.flush(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := b.c.do(ctx, s); err != nil {
		return b.fault(err, s.line)
	}
	return nil
}

// flush has the daemon carry out what is pending.
func (b *batch) flush(ctx context.Context) error {
	steps := b.pending
	b.pending = nil
	if len(steps) == 0 {
		return nil
	}
	r := &api.CommandRequest{Namespace: b.c.namespace, Force: b.c.force}
	for i := range steps {
		r.Commands = append(r.Commands, steps[i].command())
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	reply, err := b.c.client().Command(ctx, r)
	if e, ok := errors.AsType[*api.Error](err); ok && e.Index != nil && *e.Index < len(steps) {
		return b.tell(err, steps[*e.Index].line)
	}
	if err != nil {
		return err
	}
	return b.left(steps, reply.Failed)
}

// left tells what -force left out.
func (b *batch) left(steps []step, failed []api.CommandFault) error {
	for _, f := range failed {
		err := &api.Error{Code: api.CodeInvalid, Message: f.Message}
		if f.Index < 0 || f.Index >= len(steps) {
			return err
		}
		if err := b.fault(err, steps[f.Index].line); err != nil {
			return err
		}
	}
	return nil
}

// fault tells an error of a line. It returns it too, unless -force says to go on.
func (b *batch) fault(err error, line int) error {
	err = b.tell(err, line)
	if !b.c.force {
		return err
	}
	if b.failed == nil {
		b.failed = err
	}
	return nil
}

// tell tells an error as ip(8) does: what it was, and then where.
func (b *batch) tell(err error, line int) error {
	if _, told := errors.AsType[*toldError](err); !told {
		fmt.Fprintln(b.c.err, explain(&operationError{err}))
	}
	fmt.Fprintf(b.c.err, "Command failed %s:%d\n", b.name, line)
	return &toldError{err}
}
