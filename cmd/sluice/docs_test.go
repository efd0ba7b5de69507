// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// commands returns every command of the tree but cobra's own.
func commands() []*cobra.Command {
	cobraOwn := []string{"completion", "help"}
	return slices.DeleteFunc((&cli{}).root().Commands(), func(c *cobra.Command) bool {
		return slices.Contains(cobraOwn, c.Name())
	})
}

// section returns the part of a Markdown text below a heading, up to the next
// heading of the same rank.
func section(text, heading string) string {
	_, after, found := strings.Cut(text, "\n## "+heading+"\n")
	if !found {
		return ""
	}
	body, _, _ := strings.Cut(after, "\n## ")
	return body
}

func TestManualHasEveryCommandAndFlag(t *testing.T) {
	manual := readDoc(t, "../../docs/cli.md")
	verbs := func(n noun, body string) {
		for _, v := range n.verbs {
			if v.does != refuse && v.does != usage && !strings.Contains(body, v.name) {
				t.Errorf("docs/cli.md, sluice %s: %s is missing", n.name, v.name)
			}
		}
	}
	for _, cmd := range commands() {
		body := section(manual, "sluice "+cmd.Name())
		if body == "" {
			t.Errorf("docs/cli.md has no section %q", "## sluice "+cmd.Name())
			continue
		}
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if f.Name != "help" && !strings.Contains(body, "`--"+f.Name) {
				t.Errorf("docs/cli.md, sluice %s: --%s is missing", cmd.Name(), f.Name)
			}
		})
		if n, ok := findNoun(cmd.Name()); ok && n.name == cmd.Name() {
			verbs(n, body)
		}
		for _, alias := range cmd.Aliases {
			if !strings.Contains(body, "`"+alias+"`") {
				t.Errorf("docs/cli.md, sluice %s: alias %s is missing", cmd.Name(), alias)
			}
		}
	}
	global := section(manual, "Global flags")
	missing := func(f *pflag.Flag) {
		if !strings.Contains(global, "`--"+f.Name) {
			t.Errorf("docs/cli.md, Global flags: --%s is missing", f.Name)
		}
	}
	(&cli{}).root().PersistentFlags().VisitAll(missing)
	(&cli{}).root().Flags().VisitAll(missing)
}

func TestManualHasEveryExitCode(t *testing.T) {
	body := section(readDoc(t, "../../docs/cli.md"), "Exit codes")
	for code := exitOK; code <= exitPermission; code++ {
		if !strings.Contains(body, fmt.Sprintf("\n| %d | ", code)) {
			t.Errorf("docs/cli.md, Exit codes: %d is missing", code)
		}
	}
}

// spoken finds command lines in a text: what follows a sluice at the begin of a
// line of code, of a code span, or behind sudo or a connecting sign.
var spoken = regexp.MustCompile("(?m)(?:^ {0,4}|`|sudo |&& |\\| |; |\\$ )sluice((?: +[^\\s`|;&#]+)+)")

// wrongWords returns what in a text looks like a command line of sluice and
// isn't one.
func wrongWords(text string) []string {
	var wrong []string
	for _, m := range spoken.FindAllStringSubmatch(text, -1) {
		words, err := (&optionReader{set: setFlag((&cli{}).root())}).read(strings.Fields(m[1]))
		switch {
		case err != nil:
			wrong = append(wrong, "sluice"+m[1])
		case len(words) > 0 && words[0][0] != '[': // a synopsis
			wrong = append(wrong, wrongWord(words)...)
		}
	}
	return wrong
}

// wrongWord looks at a command line without the options in front of it.
func wrongWord(words []string) []string {
	root := (&cli{}).root()
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	n, isNoun := findNoun(words[0])
	if isNoun {
		words[0] = n.name
	}
	cmd, rest, err := root.Find(words)
	if err != nil || cmd == root {
		return []string{"sluice " + words[0]}
	}
	if isNoun && len(rest) > 0 && plain.MatchString(rest[0]) {
		if _, err := n.step(rest[:1]); err != nil {
			return []string{"sluice " + n.name + " " + rest[0]}
		}
	}
	return wrongFlags(root, cmd, rest)
}

// plain is a word that is meant as it is, and not a placeholder.
var plain = regexp.MustCompile("^[a-z]+$")

func wrongFlags(root, cmd *cobra.Command, words []string) []string {
	var wrong []string
	for _, word := range words {
		name, isFlag := strings.CutPrefix(word, "--")
		name, _, _ = strings.Cut(name, "=")
		name = strings.TrimRight(name, "],.:)")
		if isFlag && name != "help" && cmd.Flags().Lookup(name) == nil && root.PersistentFlags().Lookup(name) == nil {
			wrong = append(wrong, "sluice "+cmd.Name()+" --"+name)
		}
	}
	return wrong
}

// TestDocsSpeakRealCommands: an example that doesn't run is worse than none.
func TestDocsSpeakRealCommands(t *testing.T) {
	files := []string{"../../README.md", "../../CONTRIBUTING.md", "../../demo/demo.sh"}
	for _, pattern := range []string{"../../docs/*.md", "../../docs/decisions/*.md", "../../dist/*"} {
		more, err := filepath.Glob(pattern)
		if err != nil || len(more) == 0 {
			t.Fatalf("%s: %v, %d files", pattern, err, len(more))
		}
		files = append(files, more...)
	}
	for _, file := range files {
		for _, wrong := range wrongWords(readDoc(t, file)) {
			t.Errorf("%s: no such command: %s", file, wrong)
		}
	}
}

func TestWrongWordsAreFound(t *testing.T) {
	for name, tc := range map[string]struct {
		text string
		want []string
	}{
		"a line of code":       {"    sluice attach red --ip 10.0.0.2\n", nil},
		"a code span":          {"see `sluice link show red`.", nil},
		"a code span, wrong":   {"see `sluice mroute`.", []string{"sluice mroute"}},
		"a wrong verb":         {"    sluice -n blue route save\n", []string{"sluice route save"}},
		"a wrong option":       {"    sluice -frob route\n", []string{"sluice -frob route"}},
		"abbreviated":          {"`sluice -6 ro sh`", nil},
		"a batch":              {"sluice -batch FILE", nil},
		"a wrong flag":         {"sudo sluice attach red --fast 3", []string{"sluice attach --fast"}},
		"a global flag":        {"sluice -o json --socket /x link", nil},
		"behind a pipe":        {"cat x | sluice apply -f -", nil},
		"the name in a phrase": {"what sluice forwards is counted", nil},
	} {
		t.Run(name, func(t *testing.T) {
			if got := wrongWords(tc.text); !slices.Equal(got, tc.want) {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func readDoc(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.FromSlash(name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
