// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

// parsed runs prepare on a line and returns the cli with what the options set.
func parsed(line string) (*cli, []string, error) {
	var out, errs bytes.Buffer
	c := &cli{out: &out, err: &errs, in: strings.NewReader(""), now: clock}
	words, err := c.prepare(c.root(), strings.Fields(line))
	return c, words, err
}

// given are the options that are not as they are without any, in our words.
func given(c *cli) string {
	var out []string
	for _, o := range []struct {
		is   bool
		text string
	}{
		{c.namespace != "", "namespace=" + c.namespace},
		{c.network != "", "network=" + c.network},
		{c.family != "", c.family},
		{c.format != "text", "output=" + c.format},
		{c.asJSON, "json"},
		{c.pretty, "pretty"},
		{c.stats, "stats"},
		{c.details, "details"},
		{c.oneline, "oneline"},
		{c.brief, "brief"},
		{c.help, "help"},
		{c.version, "version"},
		{c.batch != "", "batch=" + c.batch},
		{c.force, "force"},
		{!strings.HasPrefix(c.socket, "/run/sluice/"), "socket=" + c.socket},
	} {
		if o.is {
			out = append(out, o.text)
		}
	}
	return strings.Join(out, " ")
}

func TestOptions(t *testing.T) {
	for line, want := range map[string]struct{ given, words string }{
		"route":                              {"", "route"},
		"r":                                  {"", "route"},
		"ro sh":                              {"", "route sh"},
		"ru":                                 {"", "rule"},
		"nei":                                {"", "neigh"},
		"n":                                  {"", "neigh"},
		"neighbour show":                     {"", "neigh show"},
		"a":                                  {"", "addr"},
		"l":                                  {"", "link"},
		"v":                                  {"", "vrf"},
		"vl":                                 {"", "vlan"},
		"f":                                  {"", "fdb"},
		"m":                                  {"", "mdb"},
		"net":                                {"", "network"},
		"netns":                              {"", "namespace"},
		"namesp":                             {"", "namespace"},
		"-4 route":                           {"inet", "route"},
		"-6 r add default via fd00::1":       {"inet6", "route add default via fd00::1"},
		"-f inet6 route":                     {"inet6", "route"},
		"-family inet route":                 {"inet", "route"},
		"--family=inet route":                {"inet", "route"},
		"-s link":                            {"stats", "link"},
		"-stat link":                         {"stats", "link"},
		"-statistics link":                   {"stats", "link"},
		"--statistics link":                  {"stats", "link"},
		"link -s show red":                   {"stats", "link show red"},
		"-d -s l":                            {"stats details", "link"},
		"-det l":                             {"details", "link"},
		"-sj link":                           {"json stats", "link"},
		"-j -p r":                            {"json pretty", "route"},
		"-json -pretty r":                    {"json pretty", "route"},
		"-o json r":                          {"output=json", "route"},
		"-ojson r":                           {"output=json", "route"},
		"-o=json r":                          {"output=json", "route"},
		"--output json r":                    {"output=json", "route"},
		"neigh --output=json":                {"output=json", "neigh"},
		"-o r":                               {"oneline", "route"},
		"-oneline r":                         {"oneline", "route"},
		"-n blue r":                          {"namespace=blue", "route"},
		"-netns blue r":                      {"namespace=blue", "route"},
		"--namespace blue r":                 {"namespace=blue", "route"},
		"r show -n blue":                     {"namespace=blue", "route show"},
		"neigh --network black":              {"network=black", "neigh"},
		"-br l":                              {"brief", "link"},
		"-brief a":                           {"brief", "addr"},
		"-b f":                               {"batch=f", ""},
		"-batch - -force":                    {"batch=- force", ""},
		"-force -batch f":                    {"batch=f force", ""},
		"-fo -b f":                           {"batch=f force", ""},
		"-c r":                               {"", "route"},
		"-color=always r":                    {"", "route"},
		"-h route":                           {"help", "route"},
		"--help":                             {"help", ""},
		"route -help":                        {"help", "route"},
		"ss help":                            {"", "help ss"},
		"-j status help":                     {"json", "help status"},
		"attach help":                        {"", "attach help"}, // it may be a name
		"-V":                                 {"version", "version"},
		"-Version":                           {"version", "version"},
		"--version":                          {"version", "version"},
		"--socket /x link":                   {"socket=/x", "link"},
		"-- r":                               {"", "route"},
		"status -j":                          {"", "status -j"}, // left to cobra
		"-j status":                          {"json", "status"},
		"att red":                            {"", "att red"}, // what is ours is written in full
		"-n blue -6 -j route add x -s dev y": {"namespace=blue inet6 json stats", "route add x dev y"},
	} {
		t.Run(line, func(t *testing.T) {
			c, words, err := parsed(line)
			if err != nil {
				t.Fatal(err)
			}
			if got := given(c); got != want.given {
				t.Errorf("options: got %q, want %q", got, want.given)
			}
			if got := strings.Join(words, " "); got != want.words {
				t.Errorf("words: got %q, want %q", got, want.words)
			}
		})
	}
}

func TestWrongOptions(t *testing.T) {
	for line, says := range map[string]string{
		"-frob r":           `option "-frob" is unknown`,
		"--frob r":          `option "--frob" is unknown`,
		"r -frob":           `option "-frob" is unknown`,
		"-sx r":             `option "-sx" is unknown`,
		"-=x r":             `option "-=x" is unknown`,
		"-n":                "needs an argument",
		"r -n":              "needs an argument",
		"-s=maybe r":        "maybe",
		"r -batch f":        "not for this place",
		"rule --network b":  "not for this place",
		"--network b neigh": "not for this place",
	} {
		if _, _, err := parsed(line); err == nil || !strings.Contains(err.Error(), says) || exitCode(err) != exitUsage {
			t.Errorf("%s: %v, want an error of usage with %q", line, err, says)
		}
	}
}

// TestOptionsLikeIP compares which options are there, and which object a word
// abbreviates, with ip(8) and bridge(8).
func TestOptionsLikeIP(t *testing.T) {
	for _, line := range []string{
		"-4 r", "-6 r", "-f inet r", "-fam inet6 r", "-family inet r", "-s r", "-st r", "-d r", "-de r", "-o r",
		"-j r", "-js r", "-p r", "-pre r", "-br r", "-c r", "-V", "-Ver", "--json r", "--details r", "-- r",
		"-frob r", "-x r", "-jx r", "-f",
	} {
		out, accepted := iproute(t, "", "ip", strings.Fields(line)...)
		_, _, err := parsed(line)
		if ours := err == nil; ours != accepted {
			t.Errorf("%s: we accept it: %v (%v), ip(8): %v\n%s", line, ours, err, accepted, out)
		}
	}
}

func TestObjectsLikeIP(t *testing.T) {
	ofBridge := []string{"fdb", "mdb", "vlan"}
	// Objects of ip(8) that we don't have stand before ours in its list.
	notOurs := map[string]bool{"m": true, "f": true, "net": true}
	for _, o := range objects()[:10] {
		program := "ip"
		if slices.Contains(ofBridge, o.spelling) {
			program = "bridge"
		}
		for end := 1; end <= len(o.spelling); end++ {
			word := o.spelling[:end]
			if program == "ip" && notOurs[word] {
				continue
			}
			theirs, _ := iproute(t, "", program, word, "help")
			n, ok := findNoun(word)
			if !ok {
				t.Errorf("%q is no object of ours", word)
				continue
			}
			if program == "bridge" && !slices.Contains(ofBridge, n.name) {
				continue // ip(8) has an object that begins so
			}
			whole := map[string]string{"addr": "address", "neigh": "neighbour"}[n.name]
			if whole == "" {
				whole = n.name
			}
			if ours, _ := iproute(t, "", program, whole, "help"); ours != theirs {
				t.Errorf("%q is %s to us, to %s:\n%s", word, n.name, program, theirs)
			}
		}
	}
}
