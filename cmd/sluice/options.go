// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"

	"github.com/spf13/cobra"
)

// option is one of the OPTIONS of ip(8), which have one dash or two and may be
// abbreviated to any beginning that no option before it in the list has.
type option struct {
	name string
	flag string // the flag of cobra's that it stands for
	// value is what the flag is set to; "" for an option that takes an argument.
	value string
	// idle says that it is accepted and changes nothing.
	idle bool
	// whole says that it may not be abbreviated.
	whole bool
}

// options are ip(8)'s in ip(8)'s order, and then our own: so what an
// abbreviation means there, it means here.
func options() []option {
	return []option{
		{name: "family", flag: "family"},
		{name: "4", flag: "family", value: "inet", whole: true},
		{name: "6", flag: "family", value: "inet6", whole: true},
		{name: "h", flag: "help", value: "true", whole: true},
		{name: "stats", flag: "statistics", value: "true"},
		{name: "statistics", flag: "statistics", value: "true"},
		{name: "details", flag: "details", value: "true"},
		{name: "oneline", flag: "oneline", value: "true"},
		{name: "Version", flag: "version", value: "true"},
		{name: "version", flag: "version", value: "true", whole: true},
		{name: "force", flag: "force", value: "true"},
		{name: "batch", flag: "batch"},
		{name: "brief", flag: "brief", value: "true"},
		{name: "json", flag: "json", value: "true"},
		{name: "pretty", flag: "pretty", value: "true"},
		// Aliases of ip have it; no output of ours is coloured.
		{name: "color", value: "true", idle: true},
		{name: "help", flag: "help", value: "true"},
		{name: "netns", flag: "namespace"},
		{name: "namespace", flag: "namespace"},
		{name: "network", flag: "network"},
		{name: "output", flag: "output"},
		{name: "socket", flag: "socket"},
	}
}

// optionReader takes the options out of a command line and sets the flags that
// they stand for.
type optionReader struct {
	set func(flag, value string) error
	// everywhere says to look for options behind the first word too.
	everywhere bool
}

// read returns the words that are left.
func (r *optionReader) read(args []string) (words []string, err error) {
	for len(args) > 0 {
		arg := args[0]
		switch {
		case arg == "--":
			return append(words, args[1:]...), nil
		case len(arg) > 1 && arg[0] == '-':
			if args, err = r.option(args); err != nil {
				return nil, err
			}
		case !r.everywhere:
			return args, nil
		default:
			words, args = append(words, arg), args[1:]
		}
	}
	return words, nil
}

// option takes the option that args begin with, and its argument, and returns
// the rest.
func (r *optionReader) option(args []string) ([]string, error) {
	arg, args := args[0], args[1:]
	name := strings.TrimPrefix(strings.TrimPrefix(arg, "-"), "-")
	name, value, given := strings.Cut(name, "=")
	if format, ok := outputFormat(name, value, args); ok {
		if !given && name == "o" {
			args = args[1:]
		}
		return args, r.set("output", format)
	}
	o, ok := findOption(name)
	switch {
	case !ok:
		return args, r.letters(arg)
	case o.idle:
		return args, nil
	case given:
		return args, r.set(o.flag, value)
	case o.value != "":
		return args, r.set(o.flag, o.value)
	case len(args) == 0:
		return nil, usagef("option --%s needs an argument", o.name)
	}
	return args[1:], r.set(o.flag, args[0])
}

// outputFormat tells `-o json`, which is ours, from ip's `-o`, which takes no
// argument. The daemon knows no object of these names.
func outputFormat(name, value string, args []string) (string, bool) {
	switch {
	case name == "o" && value != "":
		return value, true
	case name == "o" && len(args) > 0 && (args[0] == "json" || args[0] == "text"):
		return args[0], true
	case name == "ojson" || name == "otext":
		return name[1:], true
	}
	return "", false
}

func findOption(name string) (option, bool) {
	for _, o := range options() {
		if name == o.name || name != "" && !o.whole && strings.HasPrefix(o.name, name) {
			return o, true
		}
	}
	return option{}, false
}

// letters sets several options in one word, as -sj. They are known by the first
// letter of what takes no argument.
func (r *optionReader) letters(arg string) error {
	name := arg[1:]
	if strings.Trim(name, "sdjpo46") != "" {
		return usagef(`option %q is unknown, try "sluice -help"`, arg)
	}
	for letter := range strings.SplitSeq(name, "") {
		o, _ := findOption(letter)
		if err := r.set(o.flag, o.value); err != nil {
			return err
		}
	}
	return nil
}

// prepare takes the options out of a command line, sets cobra's flags by them,
// and writes the object in full. What is no object of ip(8)'s or bridge(8)'s is
// left to cobra, but for the options in front of it.
func (c *cli) prepare(root *cobra.Command, args []string) ([]string, error) {
	before := &optionReader{set: setFlag(root)}
	words, err := before.read(args)
	switch {
	case err != nil || c.batch != "":
		return []string{}, err // like ip(8), a batch doesn't look at words
	case c.version:
		return []string{"version"}, nil
	case len(words) == 0:
		return []string{}, nil // nil would be os.Args to cobra
	}
	n, ok := findNoun(words[0])
	if !ok {
		return helpOf(root, words), nil
	}
	cmd, _, err := root.Find([]string{n.name})
	if err != nil {
		return nil, err
	}
	behind := &optionReader{set: setFlag(cmd), everywhere: true}
	rest, err := behind.read(words[1:])
	return append([]string{n.name}, rest...), err
}

// helpOf takes "ss help" for "help ss", as that of a noun: where a command has no use for
// the word.
func helpOf(root *cobra.Command, words []string) []string {
	if len(words) != 2 || words[1] != "help" {
		return words
	}
	cmd, _, err := root.Find(words[:1])
	if err != nil || cmd.Args == nil || cmd.Args(cmd, words[1:]) == nil {
		return words
	}
	return []string{"help", words[0]}
}

// setFlag returns a function that sets a flag of a command's or of the root's.
func setFlag(cmd *cobra.Command) func(flag, value string) error {
	return func(flag, value string) error {
		f := cmd.Flags().Lookup(flag)
		if f == nil {
			f = cmd.Root().PersistentFlags().Lookup(flag)
		}
		if f == nil {
			return usagef("option --%s is not for this place", flag)
		}
		if err := f.Value.Set(value); err != nil {
			return usagef("option --%s: %q: %v", flag, value, err)
		}
		return nil
	}
}
