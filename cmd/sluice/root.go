// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"sluice/api"
)

// cli is one run of the command line: what it reads, where it writes, whom it
// asks. Tests give it buffers and a socket of their own.
type cli struct {
	out io.Writer
	err io.Writer
	in  io.Reader
	now func() time.Time // for "up 3h" only

	socket string
	format string // "text" or "json"
	asJSON bool   // -j, short for -o json
	stats  bool   // -s, as in `ip -s link`
}

// run executes args and returns the exit code; errors have been printed.
func (c *cli) run(ctx context.Context, args []string) int {
	root := c.root()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err != nil {
		fmt.Fprintln(c.err, "sluice: "+explain(err))
	}
	return exitCode(err)
}

// root builds the tree of commands.
func (c *cli) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "sluice",
		Short: "operate a user-space network for containers",
		Long: "sluice talks to sluiced, the node's daemon, over its socket.\n" +
			"Words and output are those of ip(8), bridge(8) and ss(8).",
		SilenceErrors: true,
		SilenceUsage:  true,
		// The flags are parsed by now, but no command has begun.
		PersistentPreRunE: func(*cobra.Command, []string) error { return c.checkFormat() },
		// Without a word there is nothing to do but to show the words.
		RunE:                       func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		SuggestionsMinimumDistance: 2,
	}
	flags := root.PersistentFlags()
	flags.StringVar(&c.socket, "socket", api.DefaultSocket, "the daemon's socket")
	flags.StringVarP(&c.format, "output", "o", "text", "output: text or json")
	flags.BoolVarP(&c.asJSON, "json", "j", false, "the same as -o json")
	flags.BoolVarP(&c.stats, "statistics", "s", false, "link, network: with counters and drop reasons")

	root.SetIn(c.in)
	root.SetOut(c.out)
	root.SetErr(c.err)
	root.AddCommand(
		c.attachCommand(), c.detachCommand(),
		c.applyCommand(), c.networkCommand(),
		c.linkCommand(), c.addrCommand(), c.neighCommand(), c.fdbCommand(), c.ssCommand(),
		c.statusCommand(), c.shutdownCommand(), c.versionCommand(),
	)
	return root
}

// checkFormat settles -o and -j.
func (c *cli) checkFormat() error {
	if c.asJSON {
		c.format = "json"
	}
	if c.format != "text" && c.format != "json" {
		return fmt.Errorf("--output %q: must be text or json", c.format)
	}
	return nil
}

// client returns a client of the daemon that --socket names.
func (c *cli) client() *api.Client { return api.NewClient(c.socket) }

// action makes a command's function: whatever goes wrong inside it is the
// operation's fault and not a matter of usage, unless it says so.
func action(f func(ctx context.Context, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		if err := f(cmd.Context(), args); err != nil {
			return &operationError{err}
		}
		return nil
	}
}

// print writes v as JSON, or as the text that the function makes of it.
func (c *cli) print(v any, text func(w io.Writer)) error {
	if c.format == "json" {
		return json.NewEncoder(c.out).Encode(v)
	}
	text(c.out)
	return nil
}

func (c *cli) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "show the version of this program",
		Args:  noArgs,
		RunE: action(func(context.Context, []string) error {
			v := struct {
				Version string `json:"version"`
			}{version}
			return c.print(v, func(w io.Writer) { fmt.Fprintln(w, "sluice", version) })
		}),
	}
}
