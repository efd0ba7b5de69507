// SPDX-License-Identifier: Apache-2.0

package sluice_test

import (
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"
)

// module is the module path, and the prefix of every import of our own.
const module = "sluice"

// edges are the imports that one package may have among our own packages, each
// with its reason. What is not named is forbidden.
type edges map[string]string

// layers is the whole import graph of the project, lowest row first. A package
// may import only what stands here; .golangci.yml states the same edges for an
// editor to show, and TestDepguardStatesTheSameEdges holds the two together.
func layers() map[string]edges {
	return map[string]edges{
		// Row 0: what a frame is, why one is dropped, what the sockets say.
		".":                 {},
		"packet":            {},
		"packet/packettest": {"packet": "it builds and checks frames"},
		"trace":             {},
		"api":               {},
		"fence":             {},

		// Row 0½: needs the parsed view, nothing else.
		"flow": {"packet": "the key is made from a parsed frame"},

		// Row 1: where frames come from and where they go.
		"veth": {
			"packet": "it receives into frames and sends from them",
			"trace":  "a frame that can't be sent is dropped with a reason",
		},
		"bridge/guard": {
			"packet": "it reads what a frame says of its sender",
			"trace":  "each guard has its drop reason",
		},
		"bridge/snoop": {"packet": "it reads IGMP and MLD"},
		"bridge": {
			"bridge/guard": "what a port may send",
			"bridge/snoop": "which ports want a group",
			"packet":       "it decides on addresses of a frame",
			"trace":        "its verdict carries the drop reason",
		},
		"routing": {},
		"autoconf": {
			"packet": "it reads questions and writes answers, as frames",
			"trace":  "what it refuses is dropped with a reason",
		},
		"fragment": {
			"packet": "it reads the fragment header of a frame, and keeps frames",
			"trace":  "its verdict carries the drop reason",
		},
		"neigh": {
			"packet": "it reads and makes ARP and neighbour discovery",
			"trace":  "what it gives up is dropped with a reason",
		},
		"qdisc": {
			"packet": "it keeps frames, and cuts those that are too large",
			"trace":  "what it drops has a reason",
		},
		"qdisc/tc": {
			"qdisc":  "what its words make and show",
			"packet": "EtherTypes, protocols and MAC addresses",
		},
		"conntrack": {
			"packet": "it reads the headers of a frame",
			"trace":  "a connection that finds no room is dropped with a reason",
		},

		"dial":       {"fence": "it is around the sockets that are made"},
		"policy/nft": {}, // a language: text in, a checked tree out

		"uplink": {
			"veth":   "it enters the host's network namespace",
			"packet": "MAC addresses",
		},

		// Row 2: the words of users, and what a namespace does with an IP packet.
		"iproute": {
			"routing":      "it leaves routes and rules to it, and names its tables",
			"bridge":       "settings of ports and VLANs are the bridge's",
			"bridge/guard": "the guards have names",
			"bridge/snoop": "mcast_router is the snooping's",
			"packet":       "MAC addresses",
		},
		"router": {
			"routing":  "which way a packet takes",
			"neigh":    "where its next hop is",
			"fragment": "which flow a fragment is of",
			"packet":   "it reads frames, and makes ICMP errors and fragments",
			"trace":    "its verdict carries the drop reason",
		},

		"nat": {
			"conntrack": "which tuples are taken, and what a connection is kept as",
			"packet":    "it rewrites frames",
			"trace":     "its verdict carries the drop reason",
		},
		"policy": {
			"policy/nft": "its rulesets are what it evaluates",
			"conntrack":  "rules ask of a packet's connection, and mark it",
			"packet":     "it reads frames, and rewrites them",
		},
		"policy/journal": {"policy/nft": "transactions are in its language"},
		// The oracle of policy's tests.
		"policy/interp": {
			"policy":     "its packets and verdicts are the engine's",
			"policy/nft": "it walks the tree",
			"conntrack":  "as policy",
			"packet":     "as policy",
			"flow":       "its tests remember decisions as the flow cache does",
		},

		"policy/networkpolicy": {
			"policy/nft":    "its ruleset is one of nft's",
			"policy":        "its tests evaluate the ruleset with the engine",
			"policy/interp": "and with the interpreter",
			"conntrack":     "a packet of its tests has a connection",
		},

		"natspec": {
			"nat":       "its rules are what the words mean",
			"conntrack": "options of conntrack(8) choose connections",
			"routing":   "its errors are in ip(8)'s words",
			"packet":    "protocols have numbers",
		},
		"dns": {"nat": "DNS64 makes addresses as the translator takes them apart"},

		"proxy": {
			"dial":  "the sockets that it goes on with",
			"trace": "what it refuses is dropped with a reason",
		},

		// Row 4: puts the steps of the packet's way in order.
		"netstack": {
			"policy":         "what the ruleset of a namespace says of a packet",
			"policy/journal": "the snapshot has rulesets",
			"policy/nft":     "it lists them",

			"qdisc":        "last step: when a frame leaves",
			"router":       "third step: what becomes of an IP packet",
			"proxy":        "a socket uplink, where connections end",
			"dial":         "the protocols that one can dial",
			"fence":        "whom its sockets can't reach",
			"fragment":     "which flow a fragment is of, for connections",
			"conntrack":    "which connection a packet is of",
			"nat":          "what its addresses become",
			"dns":          "what the gateways answer for names",
			"routing":      "the snapshot has routes and rules",
			"neigh":        "who is where, for the router",
			"autoconf":     "router advertisements and DHCP of a network",
			"bridge/guard": "the snapshot says what a port may send",
			"bridge/snoop": "the snapshot says how a bridge snoops",
			"veth":         "first and last step: sockets",
			"bridge":       "second step: learn, forward, flood",
			"flow":         "short cut past the steps",
			"packet":       "frames pass through it",
			"trace":        "it counts what comes, goes and is dropped",
		},

		// Row 5: the sandboxed process; leases.
		"dataplane": {
			"netstack": "it is what runs in the sandbox",
			"dial":     "by which it asks for sockets",

			"conntrack": "it lists connections",
			"nat":       "it lists what addresses are translated to",
			"qdisc":     "it tells the state of disciplines",
			"policy":    "it tells what rules have counted",
			"dns":       "it carries queries out of the sandbox",

			"veth":  "the sockets that it is given",
			"trace": "the counter file that it maps",

			"routing":      "it reads what a packet's way is asked with",
			"bridge/snoop": "it lists the members of groups",
			"autoconf":     "it tells what devices have learned",
		},
		"ipam": {},
		"config": {
			"iproute":  "neighbours, settings and entries are in its words",
			"routing":  "routes and rules are in its words",
			"autoconf": "the services of a network are its",
			"packet":   "the MAC address of a link that is checked",
			"natspec":  "translation and published ports are in its words",
			"ipam":     "ranges of addresses are its",
			"dns":      "it says what a domain, a name and an upstream are",
			"qdisc":    "disciplines of ports are its",
			"qdisc/tc": "and in its words",

			"policy/nft": "files of rulesets include others",
		},

		// Row 6: everything that needs a privilege.
		"agent": {
			"dataplane": "it starts, feeds and replaces the dataplane",
			"netstack":  "it builds the snapshot",
			"conntrack": "it makes the file of connections, and lists them",
			"ipam":      "it leases addresses",
			"veth":      "it makes pairs and opens sockets",
			"uplink":    "what the host has for an uplink",
			"dial":      "it makes sockets for the dataplane",
			"fence":     "what they can't reach",
			"packet":    "MAC addresses",
			"trace":     "it reads the counters for the CLI",
			"config":    "networks are declared in it",
			"api":       "it serves it",

			"policy/journal": "the state file has rulesets",
			"policy/nft":     "so are those on rulesets",

			"iproute":      "commands are in its words",
			"natspec":      "so are those on connections",
			"qdisc":        "the state file has disciplines, and so has the snapshot",
			"qdisc/tc":     "commands on them are in its words",
			"nat":          "the snapshot has its rules",
			"dns":          "the snapshot says how names are answered",
			"routing":      "the state file has routes and rules",
			"router":       "it sees whether routes are right as the dataplane will",
			"autoconf":     "the state file has the services of a network",
			"bridge/snoop": "the snapshot says how a bridge snoops",
		},

		// Row 7: programs.
		"cmd/sluiced": {
			"agent":     "sluiced run",
			"dataplane": "sluiced dataplane: the same binary, executed again",
		},
		"cni-plugin": {"api": "the plugin is a client, too"},
		"cmd/sluice": {
			"api": "the CLI is a client like any other",

			"policy/networkpolicy": "policies are checked and compiled without a daemon",
			"policy/nft":           "files of rulesets include others, which only the user may be able to read",
		},

		// Tests from outside see what a user of the daemon or the library sees.
		"veth/vethtest":           {"packet": "a port in memory carries frames"},
		"conntrack/conntracktest": {},
		"policy/policytest":       {},
		"test/traffic/report":     {},
		"test/traffic":            fromOutside("test/traffic/report"),
		"test/lab":                fromOutside("test/traffic/report"),
		"test/e2e":                fromOutside("test/traffic/report", "test/lab", "test/trial", "test/steps"),
		"test/bench":              fromOutside("test/traffic/report", "test/lab", "test/trial"),
		"test/trial":              fromOutside("test/traffic/report", "test/lab"),
		"test/steps":              {},
		"test/containerd":         {}, // a module of its own, that sees programs only
		"test/networkpolicy": { // a module of its own, since cyclonus needs the client of Kubernetes
			"policy/networkpolicy": "what is compared",
			"policy/nft":           "its ruleset",
			"policy":               "the engine that evaluates it",
			"conntrack":            "a packet has a connection",
			"packet/packettest":    "frames in words",
		},
	}
}

// fromOutside are the edges of the programs and tests below test/, and those
// among themselves.
func fromOutside(among ...string) edges {
	e := edges{
		"api":               "they talk to the daemon as the CLI does",
		"packet":            "hostile and captured frames",
		"packet/packettest": "builders and checks of frames",
		"veth":              "namespaces and raw sockets inside containers",
		"netstack":          "the library, as its users see it",
	}
	for _, to := range among {
		e[to] = "what tests share"
	}
	return e
}

// forTests are the edges that a _test file of any package may add.
func forTests() edges {
	return edges{
		"packet/packettest": "frames in words",
		"packet":            "the addresses and frames of a test's input",
		"veth/vethtest":     "a port without a namespace and without root",
		"qdisc/tc":          "disciplines in words",

		"conntrack/conntracktest": "what the kernel tracks",
		"policy/policytest":       "random rulesets, and nft(8)",
		"test/steps":              "a process that is stopped between two lines",
	}
}

// badEdges returns one line for each import of f that allowed doesn't name.
func badEdges(f *goFile, allowed map[string]edges) []string {
	own, known := allowed[f.dir()]
	if !known {
		return []string{fmt.Sprintf("%s: folder %q is not in layers(): give it a row and its edges", f.path, f.dir())}
	}
	var bad []string
	for _, imp := range f.imports() {
		to, ours := strings.CutPrefix(imp, module+"/")
		if imp == module {
			to, ours = ".", true
		}
		_, may := own[to]
		if f.isTest() && !may {
			_, may = forTests()[to]
			may = may || to == f.dir()
		}
		if ours && !may {
			bad = append(bad, fmt.Sprintf("%s: imports %s, which %s may not", f.path, imp, f.dir()))
		}
	}
	return bad
}

func TestImportsFollowTheLayers(t *testing.T) {
	allowed := layers()
	for _, f := range goTree(t) {
		for _, bad := range badEdges(f, allowed) {
			t.Error(bad)
		}
	}
}

func TestLayersHaveNoCycle(t *testing.T) {
	allowed := layers()
	var walk func(from string, way []string)
	walk = func(from string, way []string) {
		if slices.Contains(way, from) {
			t.Fatalf("cycle: %s", strings.Join(append(way, from), " -> "))
		}
		for to, why := range allowed[from] {
			if why == "" {
				t.Errorf("%s -> %s has no reason", from, to)
			}
			if _, known := allowed[to]; !known {
				t.Errorf("%s -> %s: no such package", from, to)
			}
			walk(to, append(slices.Clone(way), from))
		}
	}
	for from := range allowed {
		walk(from, nil)
	}
}

func TestBadEdgesAreFound(t *testing.T) {
	for name, tc := range map[string]struct {
		file, imports string
		want          int
	}{
		"downwards":               {"bridge/input.go", `"sluice/packet"`, 0},
		"standard library":        {"packet/frame.go", `"net/netip"`, 0},
		"sideways":                {"bridge/input.go", `"sluice/veth"`, 1},
		"upwards":                 {"packet/frame.go", `"sluice/netstack"`, 1},
		"builders in a test":      {"bridge/input_test.go", `"sluice/packet/packettest"`, 0},
		"builders in the product": {"bridge/input.go", `"sluice/packet/packettest"`, 1},
		"upwards in a test":       {"bridge/input_test.go", `"sluice/agent"`, 1},
		"itself in a test":        {"bridge/input_test.go", `"sluice/bridge"`, 0},
		"the CLI past its api":    {"cmd/sluice/main.go", `"sluice/agent"`, 1},
		"unknown folder":          {"helpers/x.go", `"fmt"`, 1},
	} {
		t.Run(name, func(t *testing.T) {
			f, err := parseGo(tc.file, "package x\nimport _ "+tc.imports)
			if err != nil {
				t.Fatal(err)
			}
			if got := badEdges(f, layers()); len(got) != tc.want {
				t.Errorf("got %q, want %d faults", got, tc.want)
			}
		})
	}
}

// depguardRule is the part of a depguard rule that states edges.
type depguardRule struct {
	ListMode string   `yaml:"list-mode"`
	Files    []string `yaml:"files"`
	Allow    []string `yaml:"allow"`
}

// TestDepguardStatesTheSameEdges compares .golangci.yml with layers(), so that
// the list an editor shows can't drift from the list that decides.
func TestDepguardStatesTheSameEdges(t *testing.T) {
	var conf struct {
		Linters struct {
			Settings struct {
				Depguard struct {
					Rules map[string]depguardRule `yaml:"rules"`
				} `yaml:"depguard"`
			} `yaml:"settings"`
		} `yaml:"linters"`
	}
	text, err := os.ReadFile(".golangci.yml")
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, &conf); err != nil {
		t.Fatal(err)
	}

	want := map[string][]string{}
	for from, may := range layers() {
		want[from] = slices.Sorted(maps.Keys(may))
	}
	got := map[string][]string{}
	for name, rule := range conf.Linters.Settings.Depguard.Rules {
		if rule.ListMode != "strict" {
			t.Errorf("rule %s: list-mode %q, want strict", name, rule.ListMode)
		}
		dir := path.Dir(strings.TrimPrefix(rule.Files[0], "${base-path}/"))
		got[dir] = ownEdges(rule.Allow)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("layers() and .golangci.yml differ (-layers +depguard):\n%s", diff)
	}
}

// ownEdges returns the imports of our own among the patterns of one rule.
func ownEdges(allow []string) []string {
	var own []string
	for _, pattern := range allow {
		if to, ours := strings.CutPrefix(strings.TrimSuffix(pattern, "$"), module); ours {
			own = append(own, strings.TrimPrefix(to, "/"))
		}
	}
	slices.Sort(own)
	return own
}
