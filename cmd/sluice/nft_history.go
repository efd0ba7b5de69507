// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"sluice/api"
)

// nftOwn is what a line asks for that nft(8) has no word for; nil if it has.
func (c *cli) nftOwn(l *nftLine) func(context.Context) error {
	if len(l.words) == 0 || l.file != "" {
		return nil
	}
	words := l.words[1:]
	switch l.words[0] {
	case "history":
		return c.nftNumbers(words, 0, func(ctx context.Context, _ []uint64) error { return c.nftHistory(ctx, l) })
	case "diff":
		return c.nftNumbers(words, 2, func(ctx context.Context, n []uint64) error { return c.nftDiff(ctx, l, n) })
	case "undo":
		return c.nftNumbers(words, 1, func(ctx context.Context, n []uint64) error { return c.nftUndo(ctx, l, n) })
	case "monitor":
		return func(ctx context.Context) error { return c.nftFollow(ctx, l, words) }
	case "explain":
		return func(ctx context.Context) error { return c.nftExplain(ctx, l, words) }
	case "log":
		return func(ctx context.Context) error { return c.nftFollow(ctx, l, l.words) }
	case "confirm":
		return c.nftNumbers(words, 0, func(ctx context.Context, _ []uint64) error {
			r, err := c.client().NFTConfirm(ctx, &api.NFTConfirmRequest{Namespace: l.Namespace, Port: l.Port})
			if err == nil {
				c.nftRemark("commit %d is confirmed.", r.Commit)
			}
			return err
		})
	}
	return nil
}

// nftNumbers reads numbers of commits.
func (c *cli) nftNumbers(words []string, most int, do func(context.Context, []uint64) error) func(context.Context) error {
	return func(ctx context.Context) error {
		var numbers []uint64
		for _, w := range words {
			n, err := strconv.ParseUint(w, 10, 64)
			if err != nil || len(numbers) == most {
				return usagef("nft: unexpected %q: want at most %d numbers of commits, as nft history shows them", w, most)
			}
			numbers = append(numbers, n)
		}
		return do(ctx, numbers)
	}
}

func (c *cli) nftHistory(ctx context.Context, l *nftLine) error {
	all, err := c.client().NFTHistory(ctx, api.ShowQuery{Namespace: l.Namespace, Port: l.Port})
	if err != nil {
		return err
	}
	if l.Show.JSON {
		c.format = "json"
	}
	return c.print(all, func(w io.Writer) {
		var rows [][]string
		for i := range all {
			rows = append(rows, commitRow(&all[i]))
		}
		table(w, rows)
	})
}

func commitRow(k *api.NFTCommit) []string {
	at, what := "-", k.Summary
	if !k.Time.IsZero() {
		at = k.Time.Local().Format(time.DateTime)
	}
	if k.File != "" {
		what = k.File + ": " + what
	}
	if k.Unconfirmed {
		what += fmt.Sprintf(" (not confirmed, %d s left)", k.SecondsLeft)
	}
	return []string{strconv.FormatUint(k.Number, 10), at, orDash(k.By), what}
}

func (c *cli) nftDiff(ctx context.Context, l *nftLine, n []uint64) error {
	r := &api.NFTDiffRequest{Namespace: l.Namespace, Port: l.Port}
	if len(n) > 0 {
		r.From = &n[0]
	}
	if len(n) > 1 {
		r.To = &n[1]
	}
	reply, err := c.client().NFTDiff(ctx, r)
	if err != nil {
		return err
	}
	_, err = io.WriteString(c.out, reply.Output)
	return err
}

func (c *cli) nftUndo(ctx context.Context, l *nftLine, n []uint64) error {
	r := &api.NFTUndoRequest{Namespace: l.Namespace, Port: l.Port}
	if len(n) > 0 {
		if r.Commit = n[0]; r.Commit == 0 {
			return usagef("nft undo: commits begin at 1")
		}
	}
	reply, err := c.client().NFTUndo(ctx, r)
	if err != nil {
		return err
	}
	c.nftRemark("commit %d has undone it.", reply.Commit)
	if l.Echo {
		_, err = io.WriteString(c.out, reply.Output)
	}
	return err
}

// nftRemark tells the user what isn't output.
func (c *cli) nftRemark(format string, args ...any) {
	fmt.Fprintf(c.err, "sluice: "+format+"\n", args...)
}

// nftFollow shows lines as they come, until it is interrupted.
func (c *cli) nftFollow(ctx context.Context, l *nftLine, words []string) error {
	s := &l.Show
	asked := slices.Clone(words)
	for option, on := range map[string]bool{
		"-a": s.Handles, "-j": s.JSON, "-n": s.Numeric, "-y": s.NumericPriority, "-p": s.NumericProtocol, "-T": s.NumericTime,
		"-S": s.Services, "-s": s.Stateless, "-t": s.Terse,
	} {
		if on {
			asked = append(asked, option)
		}
	}
	if s.JSON && len(words) == 1 && (words[0] == "trace" || words[0] == "log") {
		return usagef("nft: %s has no JSON", words[0])
	}
	q := api.ShowQuery{Namespace: l.Namespace, Port: l.Port, Words: asked}
	return follow(ctx, func(ctx context.Context, after uint64) (*api.NFTEvents, error) {
		return c.client().NFTEvents(ctx, q, after)
	}, func(e *api.NFTEvents) (uint64, error) { return e.Next, c.printLines(e) })
}

func (c *cli) printLines(e *api.NFTEvents) error {
	if e.Lost > 0 {
		c.nftRemark("%d were lost.", e.Lost)
	}
	for _, line := range e.Lines {
		if _, err := fmt.Fprintln(c.out, line); err != nil {
			return err
		}
	}
	return nil
}

// nftEndless reports whether words behind nft ask for what goes on until it is
// interrupted.
func nftEndless(words []string) bool {
	var l nftLine
	if err := l.read(words); err != nil || len(l.words) == 0 || l.file != "" {
		return false
	}
	return l.words[0] == "monitor" || l.words[0] == "log"
}
