// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"

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

	socket    string
	namespace string // -n: the routing domain that is meant
	network   string // --network: of the words that have it
	family    string // "", "inet" or "inet6"
	format    string // "text" or "json"
	asJSON    bool   // -j, short for -o json
	pretty    bool   // -p: JSON in lines
	stats     bool   // -s, as in `ip -s link`
	details   bool   // -d, as in `bridge -d link`
	oneline   bool   // -o, as in `ip -o route`
	brief     bool   // -br, as in `ip -br link`
	help      bool
	version   bool
	batch     string // -b: the file of commands
	force     bool   // -force: a batch goes on after a fault
}

// run executes args and returns the exit code; errors have been printed.
func (c *cli) run(ctx context.Context, args []string) int {
	root := c.root()
	words, err := c.prepare(root, args)
	if err == nil {
		root.SetArgs(words)
		err = c.execute(ctx, root, words)
	}
	if _, told := errors.AsType[*toldError](err); err != nil && !told {
		fmt.Fprintln(c.err, ourName(err)+explain(err))
	}
	return exitCode(err)
}

// ourName is what stands in front of an error: nothing, if the daemon put it in the
// words of ip(8), which begin with a capital where ours don't, or in those of nft(8),
// which begin with the place and take several lines.
func ourName(err error) string {
	e, ok := errors.AsType[*api.Error](err)
	if ok && e.Message != "" && err.Error() == e.Message && (unicode.IsUpper(rune(e.Message[0])) || strings.Contains(e.Message, "\n")) {
		return ""
	}
	return "sluice: "
}

// execute runs the command. A batch has its patience for each of its steps.
func (c *cli) execute(ctx context.Context, root *cobra.Command, words []string) error {
	if c.batch == "" && !endless(words) {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, patience)
		defer cancel()
	}
	return root.ExecuteContext(ctx)
}

// root builds the tree of commands.
func (c *cli) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "sluice",
		Short: "operate a user-space network for containers",
		Long: "sluice talks to sluiced, the node's daemon, over its socket.\n" +
			"Words and output are those of ip(8), bridge(8), ss(8) and conntrack(8).",
		SilenceErrors: true,
		SilenceUsage:  true,
		// The flags are parsed by now, but no command has begun.
		PersistentPreRunE:          func(cmd *cobra.Command, _ []string) error { return c.checkFlags(cmd) },
		RunE:                       c.noWord,
		SuggestionsMinimumDistance: 2,
	}
	c.addFlags(root)
	root.SetIn(c.in)
	root.SetOut(c.out)
	root.SetErr(c.err)
	root.AddCommand(c.attachCommand(), c.detachCommand(), c.applyCommand())
	for _, n := range nouns() {
		root.AddCommand(c.nounCommand(n))
	}
	root.AddCommand(c.conntrackCommand(), c.nftCommand(), c.ssCommand(), c.policyCommand(), c.statusCommand(), c.shutdownCommand(), c.versionCommand())
	return root
}

// addFlags adds what may stand before any object, and -b and -force, which have
// none.
func (c *cli) addFlags(root *cobra.Command) {
	flags := root.PersistentFlags()
	flags.StringVar(&c.socket, "socket", api.DefaultSocket, "the daemon's socket")
	flags.StringVarP(&c.namespace, "namespace", "n", "", "only this namespace (-netns as well)")
	flags.StringVar(&c.family, "family", "", "inet or inet6, for which -4 and -6 are short")
	flags.StringVarP(&c.format, "output", "o", "text", "output: text or json")
	flags.BoolVarP(&c.asJSON, "json", "j", false, "the same as -o json")
	flags.BoolVarP(&c.pretty, "pretty", "p", false, "JSON in lines")
	flags.BoolVarP(&c.stats, "statistics", "s", false, "link, network: with counters and drop reasons")
	flags.BoolVarP(&c.details, "details", "d", false, "link: with the settings of ports")
	flags.BoolVar(&c.oneline, "oneline", false, "an entry is a line (-o, if no format follows)")
	flags.BoolVar(&c.brief, "brief", false, "link, addr: in columns")
	flags.BoolVarP(&c.help, "help", "h", false, "help on any command")
	root.Flags().StringVarP(&c.batch, "batch", "b", "", "carry out the commands of a file, - for standard input")
	root.Flags().BoolVar(&c.force, "force", false, "go on after a fault in a batch")
	root.Flags().BoolVarP(&c.version, "version", "V", false, "show the version of this program")
}

// noWord is what is done without an object: a batch, or else there is nothing to
// do but to show the words.
func (c *cli) noWord(cmd *cobra.Command, args []string) error {
	if c.batch == "" {
		return cmd.Help()
	}
	return action(func(ctx context.Context, _ []string) error { return c.runBatch(ctx) })(cmd, args)
}

// checkFlags settles -o and -j, and checks -f and -n.
func (c *cli) checkFlags(cmd *cobra.Command) error {
	_, isNoun := findNoun(cmd.Name())
	if !isNoun && cmd.Name() != "ss" && cmd.Name() != "conntrack" && cmd.Name() != "nft" && cmd != cmd.Root() && c.namespace+c.family != "" {
		return fmt.Errorf("%s has no namespace and no family", cmd.Name())
	}
	if c.asJSON {
		c.format = "json"
	}
	if c.format != "text" && c.format != "json" {
		return fmt.Errorf("--output %q: must be text or json", c.format)
	}
	if c.family != "" && c.family != "inet" && c.family != "inet6" {
		return fmt.Errorf("--family %q: must be inet or inet6", c.family)
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
		e := json.NewEncoder(c.out)
		if c.pretty {
			e.SetIndent("", "    ")
		}
		return e.Encode(v)
	}
	w := bufio.NewWriter(c.out) // there may be a hundred thousand routes
	text(w)
	return w.Flush()
}

// noArgs accepts nothing.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("unknown word %q after %q", args[0], cmd.Name())
	}
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
