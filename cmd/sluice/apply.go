// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"

	"github.com/spf13/cobra"

	"sluice/api"
)

func (c *cli) applyCommand() *cobra.Command {
	var file string
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "apply -f FILE",
		Short: "declare the networks of the node",
		Long: "FILE is the whole truth: networks that it doesn't name are removed.\n" +
			"It is applied as a whole or not at all. - reads standard input.",
		Example: "  sluice apply -f /etc/sluice/sluice.yaml --dry-run",
		Args:    noArgs,
		RunE: action(func(ctx context.Context, _ []string) error {
			if file == "" {
				return usagef("apply: give the file with -f")
			}
			text, err := c.readFile(file)
			if err != nil {
				return err
			}
			rulesets, err := rulesetFiles(file, string(text))
			if err != nil {
				return err
			}
			changes, err := c.client().Apply(ctx, &api.ApplyRequest{YAML: string(text), Rulesets: rulesets, DryRun: dryRun})
			if err != nil {
				return inFile(file, err)
			}
			return c.print(orEmpty(changes), func(w io.Writer) { printChanges(w, changes, dryRun) })
		}),
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "file with the networks, - for standard input")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "show what would change, change nothing")
	return cmd
}

// readFile reads the file, bounded by what the daemon takes.
func (c *cli) readFile(name string) ([]byte, error) {
	in := c.in
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, api.MaxRequest+1))
	if err == nil && len(text) > api.MaxRequest {
		err = fmt.Errorf("%s: larger than %d bytes", name, api.MaxRequest)
	}
	return text, err
}

// rulesetFiles reads what may be files of rulesets that a file of networks names,
// relative to its folder. What isn't there the daemon says, with its place.
func rulesetFiles(file, text string) (all map[string]api.RulesetFile, err error) {
	for _, m := range regexp.MustCompile(`nftFile["']?\s*:\s*(?:"([^"\n]*)"|'([^'\n]*)'|([^\s,}#]+))`).FindAllStringSubmatch(text, -1) {
		name := m[1] + m[2] + m[3]
		path, err := besides(file, name)
		if err != nil {
			return nil, err
		}
		d := disk()
		body, there, err := d.Read(path)
		if err != nil {
			return nil, err
		}
		if !there {
			continue
		}
		included, err := d.Included(path, body)
		if err != nil {
			return nil, err
		}
		if all == nil {
			all = make(map[string]api.RulesetFile)
		}
		all[name] = api.RulesetFile{File: path, Text: body, Included: included}
	}
	return all, nil
}

// besides is the path of a file that another one names, relative to its folder.
func besides(file, name string) (string, error) {
	if filepath.IsAbs(name) {
		return name, nil
	}
	if file != "-" {
		name = filepath.Join(filepath.Dir(file), name)
	}
	return filepath.Abs(name)
}

// inFile names the file in front of what the daemon found wrong in it.
func inFile(name string, err error) error {
	if name == "-" {
		name = "standard input"
	}
	if _, ok := errors.AsType[*api.Error](err); ok {
		return fmt.Errorf("%s: %w", name, err)
	}
	return err
}

func printChanges(w io.Writer, changes []api.Change, dryRun bool) {
	note := ""
	if dryRun {
		note = " (dry run)"
	}
	if len(changes) == 0 {
		fmt.Fprintf(w, "no change%s\n", note)
	}
	for _, ch := range changes {
		fmt.Fprintln(w, changeText(&ch)+note)
	}
}

func changeText(ch *api.Change) string {
	switch {
	case ch.Object != "":
		return ch.String()
	case ch.Field == "":
		return ch.Action + " network " + ch.Network
	}
	return fmt.Sprintf("%s network %s %s %s -> %s", ch.Action, ch.Network, ch.Field, orDash(ch.From), orDash(ch.To))
}
