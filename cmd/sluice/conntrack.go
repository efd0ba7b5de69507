// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sluice/api"
)

const conntrackUsage = `Usage: sluice conntrack -L [conntrack] [OPTION]...
       sluice conntrack -D [conntrack] [OPTION]...
       sluice conntrack -E [conntrack] [-e EVENT,...] [OPTION]...
       sluice conntrack -C [conntrack] [OPTION]...
       sluice conntrack { -F | -S } [conntrack]
OPTION :=
  -s, --src, --orig-src PREFIX      source of the first packet
  -d, --dst, --orig-dst PREFIX      its destination
  -r, --reply-src PREFIX            source of an answer
  -q, --reply-dst PREFIX            its destination
  -p, --proto PROTO                 tcp, udp, icmp, icmpv6, sctp, gre or a number
  --sport, --orig-port-src PORT     and --dport, --orig-port-dst
  --reply-port-src PORT             and --reply-port-dst
  --icmp-type TYPE                  and --icmp-code, --icmp-id
  --state STATE                     of TCP and SCTP
  -f, --family FAMILY               ipv4 or ipv6
  -u, --status STATUS,...           ASSURED, SEEN_REPLY, FIXED_TIMEOUT, EXPECTED, UNSET
  -n, --src-nat [PREFIX]            source translated (to it)
  -g, --dst-nat [PREFIX]            destination translated (to it)
  -j, --any-nat                     translated
  -m, --mark MARK[/MASK]            and -l, --label BITS
  -w, --zone ZONE                   that of a namespace; sluice -n NAME says it by name
  -i, --id ID                       as -o id shows it
  -e, --event-mask EVENT,...        NEW, UPDATES, DESTROY, ALL
  -o, --output FORMAT,...           extended, id, timestamp, labels, json
`

// conntrackFlags are the long options, which the daemon reads.
func conntrackFlags() []string {
	return []string{
		"dump", "delete", "event", "flush", "count", "stats",
		"src", "orig-src", "dst", "orig-dst", "reply-src", "reply-dst", "proto", "sport", "orig-port-src", "dport", "orig-port-dst",
		"reply-port-src", "reply-port-dst", "icmp-type", "icmp-code", "icmp-id", "state", "status", "src-nat", "dst-nat", "any-nat",
		"mark", "label", "zone", "id", "event-mask",
	}
}

func (c *cli) conntrackCommand() *cobra.Command {
	const short = "show, delete and watch tracked connections, as conntrack(8)"
	cmd := &cobra.Command{
		Use: "conntrack COMMAND [OPTION]...", Short: short,
		Example:            "  sluice conntrack -L -p tcp --dport 443\n  sluice -n shop conntrack -E -e NEW",
		DisableFlagParsing: true, // they are conntrack(8)'s
		RunE:               c.conntrackRun,
	}
	for _, name := range conntrackFlags() {
		cmd.Flags().String(name, "", "see conntrack(8)")
	}
	cmd.SetHelpFunc(func(*cobra.Command, []string) { fmt.Fprintf(c.out, "%s\n\n%s", short, conntrackUsage) })
	return cmd
}

func (c *cli) conntrackRun(cmd *cobra.Command, args []string) error {
	if slices.Contains(args, "-h") || slices.Contains(args, "--help") {
		return cmd.Help()
	}
	letter, words, err := c.conntrackWords(args)
	if err != nil {
		return err
	}
	return action(func(ctx context.Context, _ []string) error { return c.conntrack(ctx, letter, words) })(cmd, nil)
}

// conntrackWords finds the command, and takes out what is for this program: json.
func (c *cli) conntrackWords(args []string) (letter byte, words []string, err error) {
	switch c.family {
	case "inet":
		words = append(words, "-f", "ipv4")
	case "inet6":
		words = append(words, "-f", "ipv6")
	}
	for i, arg := range args {
		if l, is := conntrackLetter(arg); is {
			letter = l
		}
		if i > 0 && (args[i-1] == "-o" || args[i-1] == "--output") {
			arg = c.takeJSON(arg)
		} else if rest, ok := strings.CutPrefix(arg, "--output="); ok {
			arg = "--output=" + c.takeJSON(rest)
		}
		words = append(words, arg)
	}
	if letter == 0 {
		return 0, nil, usagef(`need one of -L, -D, -E, -F, -C and -S, try "sluice help conntrack"`)
	}
	return letter, words, nil
}

// takeJSON takes json out of a list of formats; text is none.
func (c *cli) takeJSON(formats string) string {
	all := strings.Split(formats, ",")
	if slices.Contains(all, "json") {
		c.format = "json"
	}
	if all = slices.DeleteFunc(all, func(f string) bool { return f == "json" }); len(all) == 0 {
		return "text"
	}
	return strings.Join(all, ",")
}

func conntrackLetter(arg string) (byte, bool) {
	letters := map[string]byte{
		"-L": 'L', "-D": 'D', "-E": 'E', "-F": 'F', "-C": 'C', "-S": 'S',
		"--dump": 'L', "--delete": 'D', "--event": 'E', "--flush": 'F', "--count": 'C', "--stats": 'S',
	}
	l, is := letters[arg]
	return l, is
}

// endless reports whether a command line has no end of its own, or one that depends on
// who reads what it prints: then each question has its patience.
func endless(words []string) bool {
	if len(words) > 0 && words[0] == "nft" {
		return nftEndless(words[1:])
	}
	return len(words) > 0 && words[0] == "conntrack" && slices.ContainsFunc(words, func(word string) bool {
		letter, _ := conntrackLetter(word)
		return letter != 0 && strings.IndexByte("EDFL", letter) >= 0
	})
}

func (c *cli) conntrack(ctx context.Context, letter byte, words []string) error {
	switch letter {
	case 'L':
		return c.listConnections(ctx, words)
	case 'E':
		return c.watchConnections(ctx, words)
	case 'C':
		return c.connectionStats(ctx, letter, words)
	case 'S':
		return c.connectionStats(ctx, letter, nil)
	}
	return c.deleteConnections(ctx, letter, words)
}

// remark is what conntrack(8) says beside its output.
func (c *cli) remark(format string, args ...any) {
	fmt.Fprintf(c.err, "sluice %s (conntrack): "+format+"\n", append([]any{version}, args...)...)
}

func (c *cli) listConnections(ctx context.Context, words []string) error {
	shown, err := c.pages(ctx, func(ctx context.Context, from uint64) (*api.Page, error) {
		return c.client().Connections(ctx, c.pageQuery(words, from))
	})
	if err != nil {
		return err
	}
	c.remark("%d flow entries have been shown.", shown)
	return nil
}

func (c *cli) pageQuery(words []string, from uint64) api.PageQuery {
	return api.PageQuery{ShowQuery: c.query(words), From: from, Lines: c.format != "json"}
}

// pages prints a list as it comes, a part at a time, and returns how long it was.
func (c *cli) pages(ctx context.Context, ask func(context.Context, uint64) (*api.Page, error)) (shown int, err error) {
	out := pageWriter{c: c}
	for from := uint64(0); ; {
		p, err := patiently(ctx, func(ctx context.Context) (*api.Page, error) { return ask(ctx, from) })
		if err != nil {
			return shown, err
		}
		if err := out.write(p.Body); err != nil {
			return shown, err
		}
		shown += p.Entries
		if p.Next <= from {
			return shown, out.end()
		}
		from = p.Next
	}
}

// patiently asks one question.
func patiently[Out any](ctx context.Context, ask func(context.Context) (Out, error)) (Out, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return ask(ctx)
}

// deleteConnections is -D and -F. As conntrack(8), -D fails if it finds nothing.
func (c *cli) deleteConnections(ctx context.Context, letter byte, words []string) error {
	ask := func(ctx context.Context, from uint64) (*api.Page, error) {
		return c.client().DeleteConnections(ctx, &api.DeleteConnectionsRequest{
			Namespace: c.namespace, Words: words, From: from, Lines: c.format != "json",
		})
	}
	if letter == 'F' {
		return c.flushConnections(ctx, ask)
	}
	deleted, err := c.pages(ctx, ask)
	if err != nil {
		return err
	}
	c.remark("%d flow entries have been deleted.", deleted)
	if deleted == 0 {
		return &toldError{fmt.Errorf("no connection was deleted")}
	}
	return nil
}

func (c *cli) flushConnections(ctx context.Context, ask func(context.Context, uint64) (*api.Page, error)) error {
	for from := uint64(0); ; {
		p, err := patiently(ctx, func(ctx context.Context) (*api.Page, error) { return ask(ctx, from) })
		if err != nil {
			return err
		}
		if p.Next <= from {
			c.remark("connection tracking table has been emptied.")
			return nil
		}
		from = p.Next
	}
}

func (c *cli) connectionStats(ctx context.Context, letter byte, words []string) error {
	s, err := c.client().ConnectionStats(ctx, c.query(words))
	if err != nil {
		return err
	}
	return c.print(s, func(w io.Writer) {
		if letter == 'C' {
			fmt.Fprintln(w, s.Entries)
		} else {
			fmt.Fprintln(w, s.Line)
		}
	})
}

// watchConnections is -E, until it is interrupted.
func (c *cli) watchConnections(ctx context.Context, words []string) error {
	shown := 0
	err := follow(ctx, func(ctx context.Context, after uint64) (*api.Page, error) {
		return c.client().ConnectionEvents(ctx, c.pageQuery(words, after))
	}, func(p *api.Page) (uint64, error) {
		if p.Lost > 0 {
			c.remark("%d events were lost.", p.Lost)
		}
		shown += p.Entries
		return p.Next, c.printEvents(p.Body)
	})
	if err == nil {
		c.remark("%d flow events have been shown.", shown)
	}
	return err
}

// follow shows what was heard as it comes, until it is interrupted: ask waits a while for
// what comes after a number, show says what number that was.
func follow[Heard any](ctx context.Context, ask func(ctx context.Context, after uint64) (*Heard, error), show func(*Heard) (uint64, error)) error {
	for after := uint64(0); ctx.Err() == nil; {
		heard, err := patiently(ctx, func(ctx context.Context) (*Heard, error) { return ask(ctx, after) })
		switch {
		case err == nil:
		case passing(ctx, err):
			continue
		default:
			return err
		}
		if after, err = show(heard); err != nil {
			return err
		}
	}
	return nil
}

// printEvents writes a line for each, or with -p its JSON in lines.
func (c *cli) printEvents(body []byte) error {
	if c.format != "json" || !c.pretty {
		_, err := c.out.Write(body)
		return err
	}
	var b bytes.Buffer
	for event := range bytes.Lines(body) {
		if err := json.Indent(&b, event, "", "    "); err != nil {
			return err
		}
	}
	_, err := c.out.Write(b.Bytes())
	return err
}

// passing waits if an error is one after which events go on: the dataplane is being
// replaced, or the user has had enough.
func passing(ctx context.Context, err error) bool {
	if ctx.Err() != nil {
		return true
	}
	if api.CodeOf(err) != api.CodeUnavailable {
		return false
	}
	time.Sleep(eventsPause)
	return true
}

// eventsPause is between two tries to get events.
const eventsPause = 200 * time.Millisecond
