// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sluice/api"
	"sluice/policy/nft"
)

const nftUsage = `Usage: sluice [-n NAMESPACE] nft [OPTION]... COMMAND
       sluice [-n NAMESPACE] nft [OPTION]... -f FILE
       sluice [-n NAMESPACE] nft [OPTION]... monitor [ new | destroy ] [ tables | chains | sets | rules | elements | objects | ruleset ]
       sluice [-n NAMESPACE] nft [OPTION]... monitor trace
       sluice [-n NAMESPACE] nft log
       sluice [-n NAMESPACE] nft explain [ --from WHO ] --to WHO [ --iif DEVICE ] [ --proto PROTO ] [ --port PORT ] [ --sport PORT ] [ --established ]
       sluice [-n NAMESPACE] nft confirm | history | diff [FROM [TO]] | undo [COMMIT]
COMMAND := words of nft(8): add, create, insert, replace, delete, destroy, flush, rename, reset, list, get
OPTION :=
  -f, --file FILE          commands of a file, - for standard input: all or none
  -c, --check              check, and change nothing
  -e, --echo               show what was changed
  -j, --json               JSON, of libnftables-json(5)
  -a, --handle             show handles
  -s, --stateless          without what was counted
  -t, --terse              without the elements of sets
  -n, --numeric            numbers for names: -y of priorities, -p of protocols, -T of times
  -S, --service            names of services
      --confirm TIME       take the change back in TIME (as 60s, 10m) unless "nft confirm" comes before
      --namespace NAME     the namespace
      --port NAME          the ruleset of a container's port, in which that is the device "port"
`

func (c *cli) nftCommand() *cobra.Command {
	const short = "show and change the ruleset of a namespace or a port, as nft(8)"
	cmd := &cobra.Command{
		Use: "nft [OPTION]... COMMAND", Short: short,
		Example:            "  sluice nft -f /etc/sluice/filter.nft\n  sluice -n shop nft list ruleset\n  sluice nft add rule inet filter forward tcp dport 22 accept",
		DisableFlagParsing: true, // they are nft(8)'s
		RunE:               c.nftRun,
	}
	for _, name := range nftFlags() {
		cmd.Flags().String(name, "", "see nft(8)")
	}
	cmd.SetHelpFunc(func(*cobra.Command, []string) { fmt.Fprintf(c.out, "%s\n\n%s", short, nftUsage) })
	return cmd
}

// nftFlags are the long options.
func nftFlags() []string {
	return []string{
		"file", "check", "echo", "handle", "stateless", "terse", "numeric", "numeric-priority", "numeric-protocol", "numeric-time", "service", "confirm", "port",
		"from", "to", "iif", "proto", "sport", "established", // of explain, which has a port of its own
	}
}

// nftLine is a command line of nft(8).
type nftLine struct {
	api.NFTRequest
	file  string
	words []string
	help  bool
}

func (c *cli) nftRun(cmd *cobra.Command, args []string) error {
	line := nftLine{NFTRequest: api.NFTRequest{Namespace: c.namespace}}
	if err := line.read(args); err != nil {
		return err
	}
	own := c.nftOwn(&line)
	switch {
	case line.help:
		return cmd.Help()
	case own != nil:
		return action(func(ctx context.Context, _ []string) error { return own(ctx) })(cmd, nil)
	case (line.file == "") == (len(line.words) == 0):
		return usagef(`nft: want commands, or a file with -f; try "sluice help nft"`)
	}
	line.Show.JSON = line.Show.JSON || c.format == "json" || c.asJSON
	return action(func(ctx context.Context, _ []string) error { return c.nft(ctx, &line) })(cmd, nil)
}

// read takes the options out of the words.
func (l *nftLine) read(args []string) (err error) {
	for len(args) > 0 && err == nil {
		arg := args[0]
		args = args[1:]
		switch {
		case arg == "commit" && len(l.words) == 0: // -f says of what
		case len(l.words) > 0 && l.words[0] == "explain": // which has options of its own
			l.words = append(l.words, arg)
		case len(arg) < 2 || arg[0] != '-' || len(l.words) > 0 && !isLetters(arg):
			l.words = append(l.words, arg)
		case strings.HasPrefix(arg, "--"):
			args, err = l.long(arg[2:], args)
		default:
			args, err = l.letters(arg[1:], args)
		}
	}
	return err
}

// long takes an option of a word, and its argument.
func (l *nftLine) long(name string, args []string) (rest []string, err error) {
	name, value, given := strings.Cut(name, "=")
	switch {
	case l.flag(name):
		return args, nil
	case name != "file" && name != "namespace" && name != "confirm" && name != "port":
		return nil, usagef("nft: option --%s is unknown", name)
	case !given && len(args) == 0:
		return nil, usagef("option --%s needs an argument", name)
	case !given:
		value, args = args[0], args[1:]
	}
	return args, l.set(name, value)
}

// letters takes options of one letter, -f with its argument.
func (l *nftLine) letters(letters string, args []string) (rest []string, err error) {
	for i, letter := range letters {
		if letter != 'f' {
			if !l.flag(string(letter)) {
				return nil, usagef("nft: option -%c is unknown", letter)
			}
			continue
		}
		value := letters[i+1:]
		if value == "" && len(args) == 0 {
			return nil, usagef("option -f needs an argument")
		}
		if value == "" {
			value, args = args[0], args[1:]
		}
		return args, l.set("file", value)
	}
	return args, nil
}

// isLetters tells an option behind the first word from a word of the language, as -150.
func isLetters(arg string) bool { return strings.Trim(arg, "-acehjnpstySTf") == "" }

func (l *nftLine) set(name, value string) error {
	switch name {
	case "file":
		l.file = value
	case "port":
		l.Port = value
	case "namespace":
		l.Namespace = value
	case "confirm":
		d, err := time.ParseDuration(value)
		if err != nil || d < time.Second || d > api.MaxConfirm*time.Second {
			return usagef("--confirm %q: want a time from 1s to 24h", value)
		}
		l.Confirm = uint32((d + time.Second - 1) / time.Second)
	}
	return nil
}

// flag sets an option without an argument; false if there is none.
func (l *nftLine) flag(name string) bool {
	s := &l.Show
	of := map[string]*bool{
		"c": &l.Check, "check": &l.Check, "e": &l.Echo, "echo": &l.Echo, "j": &s.JSON, "json": &s.JSON, "a": &s.Handles, "handle": &s.Handles,
		"s": &s.Stateless, "stateless": &s.Stateless, "t": &s.Terse, "terse": &s.Terse, "n": &s.Numeric, "numeric": &s.Numeric,
		"y": &s.NumericPriority, "numeric-priority": &s.NumericPriority, "p": &s.NumericProtocol, "numeric-protocol": &s.NumericProtocol,
		"T": &s.NumericTime, "numeric-time": &s.NumericTime, "S": &s.Services, "service": &s.Services, "h": &l.help, "help": &l.help,
	}[name]
	if of != nil {
		*of = true
	}
	return of != nil
}

func (c *cli) nft(ctx context.Context, l *nftLine) error {
	l.Text = strings.Join(l.words, " ")
	if l.file != "" {
		text, err := c.readFile(l.file)
		if err != nil {
			return err
		}
		l.Text, l.File = string(text), l.file
		if l.file == "-" {
			l.File = "/dev/stdin"
		}
		if l.Included, err = disk().Included(l.file, l.Text); err != nil {
			return err
		}
		l.JSON = l.Show.JSON && json.Valid(text)
	}
	r, err := c.client().NFT(ctx, &l.NFTRequest)
	if err != nil {
		return err
	}
	if l.Confirm > 0 {
		words := "sluice nft"
		if l.Port != "" {
			words += " --port " + l.Port
		}
		c.nftRemark("commit %d is taken back in %d seconds, unless \"%s confirm\" comes before.", r.Commit, l.Confirm, words)
	}
	out := r.Output
	if l.Show.JSON && out != "" && !strings.HasSuffix(out, "\n") {
		out += "\n"
	}
	_, err = io.WriteString(c.out, out)
	return err
}

// disk is what the user can read; the daemon may see other files.
func disk() *nft.Disk {
	return &nft.Disk{Glob: filepath.Glob, Read: func(name string) (string, bool, error) {
		if info, err := os.Stat(name); err != nil || info.IsDir() {
			return "", false, nil //nolint:nilerr // the daemon says that it isn't there, and where it is wanted
		}
		text, err := os.ReadFile(name)
		return string(text), true, err
	}}
}
