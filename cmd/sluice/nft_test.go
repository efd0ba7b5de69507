// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/api"
)

// rulesets serves what is said and asked of rulesets.
func (a *answers) rulesets(mux *http.ServeMux) {
	mux.HandleFunc(api.PathNFT, func(w http.ResponseWriter, r *http.Request) {
		var req api.NFTRequest
		if err := api.ReadRequest(r.Body, &req); err != nil {
			api.WriteError(w, err)
			return
		}
		text, _ := json.Marshal(&req)
		a.asked.add("%s", text)
		if strings.Contains(req.Text, "frob") {
			api.WriteError(w, &api.Error{Code: api.CodeInvalid, Field: "nft", Message: "x.nft:1:1-4: Error: syntax error, unexpected string\nfrob\n^^^^"})
			return
		}
		api.WriteReply(w, api.NFTReply{Output: "table ip t {\n}\n"})
	})
	mux.HandleFunc(api.PathNFT+"/", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		a.asked.add("%s %s", r.URL.RequestURI(), bytes.TrimSpace(body))
		api.WriteError(w, &api.Error{Code: api.CodeNotFound, Message: "nobody knows"})
	})
}

// TestNFTAsks sees the options of nft(8) go to the daemon, and its words as one text.
func TestNFTAsks(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"main.nft": "include \"./part/*.nft\"\ntable ip t\n", "part/a.nft": "# a\n", "part/b.nft": "include \"./c\"\n", "part/c": "# c\n"} {
		_ = os.MkdirAll(filepath.Join(dir, "part"), 0o700)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for line, want := range map[string]string{
		"nft list ruleset":                              `{"text":"list ruleset"}`,
		"-n shop nft -a list ruleset -s":                `{"namespace":"shop","text":"list ruleset","show":{"handles":true,"stateless":true}}`,
		"nft --namespace shop -nat list ruleset":        `{"namespace":"shop","text":"list ruleset","show":{"handles":true,"terse":true,"numeric":true}}`,
		"-j nft list tables":                            `{"text":"list tables","show":{"json":true}}`,
		"nft -ec add table ip t":                        `{"text":"add table ip t","check":true,"echo":true}`,
		"nft add chain ip t c { priority -150; }":       `{"text":"add chain ip t c { priority -150; }"}`,
		"nft --port cart --confirm 5s flush ruleset":    `{"port":"cart","text":"flush ruleset","confirm":5}`,
		"nft --port cart list ruleset":                  `{"port":"cart","text":"list ruleset"}`,
		"nft --port=cart -c flush ruleset":              `{"port":"cart","text":"flush ruleset","check":true}`,
		"nft --numeric-priority --service list ruleset": `{"text":"list ruleset","show":{"numeric_priority":true,"services":true}}`,
		"nft --confirm 90s add table ip t":              `{"text":"add table ip t","confirm":90}`,
		"nft --confirm=2m commit -c add table ip t":     `{"text":"add table ip t","check":true,"confirm":120}`,
		"nft -f " + dir + "/main.nft": `{"file":"DIR/main.nft","text":"include \"./part/*.nft\"\ntable ip t\n",` +
			`"included":{"DIR/part/a.nft":"# a\n","DIR/part/b.nft":"include \"./c\"\n","DIR/part/c":"# c\n"}}`,
	} {
		a := answers{asked: new(log)}
		if out := session(t, a.listen(t), line, ""); !strings.Contains(out, "table ip t {") {
			t.Errorf("%s: %s", line, out)
		}
		if got := strings.ReplaceAll(strings.Join(a.asked.take(), "\n"), dir, "DIR"); got != want {
			t.Errorf("%s asks\n%s\nnot\n%s", line, got, want)
		}
	}
	for line, want := range map[string]string{
		"nft": "want commands", "nft -f": "needs an argument", "nft -x list ruleset": "-x is unknown", "nft -f a list": "want commands",
		"nft --frob list": "--frob is unknown", "nft --confirm 1x list": "want a time from 1s to 24h", "nft --confirm 25h list": "want a time from 1s to 24h",
		"nft undo x": "numbers of commits", "nft undo 0": "begin at 1", "nft diff 1 2 3": "at most 2 numbers", "nft history 1": "at most 0",
		"nft --port cart history 1": "at most 0", "nft --port cart explain": "say --to",
		"nft explain --to x --port cart": "want the number of a port", "nft frob": "\nx.nft:1:1-4: Error: syntax error, unexpected string\nfrob\n^^^^\n",
	} {
		a := answers{asked: new(log)}
		if out := session(t, a.listen(t), line, ""); !strings.Contains(out, want) {
			t.Errorf("%s: %s, want %q", line, out, want)
		}
	}
}

// TestNFTAsksOfPorts: what nft(8) has no word for is asked of the port that is meant, too.
func TestNFTAsksOfPorts(t *testing.T) {
	for line, want := range map[string]string{
		"nft --port cart history":                  `/v1/nft/history?port=cart `,
		"-n shop nft history":                      `/v1/nft/history?namespace=shop `,
		"nft --port cart diff 1":                   `/v1/nft/diff {"port":"cart","from":1}`,
		"nft --port cart undo 3":                   `/v1/nft/undo {"port":"cart","commit":3}`,
		"nft undo":                                 `/v1/nft/undo {}`,
		"-n shop nft --port a confirm":             `/v1/nft/confirm {"namespace":"shop","port":"a"}`,
		"nft --port cart explain --to x --port 80": `/v1/nft/explain {"of":"cart","to":"x","port":80}`,
		"nft --port cart monitor new -a":           `/v1/nft/events?after=0&port=cart&words=new+-a `,
		"nft --port cart log":                      `/v1/nft/events?after=0&port=cart&words=log `,
	} {
		a := answers{asked: new(log)}
		if out := session(t, a.listen(t), line, ""); !strings.Contains(out, "nobody knows") {
			t.Errorf("%s: %s", line, out)
		}
		if got := a.asked.take(); len(got) != 1 || got[0] != want {
			t.Errorf("%s asks %q, want %q", line, got, want)
		}
	}
}

// TestNFTEndless: what goes on until it is interrupted has no time limit; a rule that
// logs is none of it.
func TestNFTEndless(t *testing.T) {
	for line, want := range map[string]bool{
		"nft monitor": true, "nft -j monitor new rules": true, "nft monitor trace": true, "nft log": true, "nft --namespace shop log": true,
		"nft add rule ip t c log": false, "nft list ruleset": false, "nft -f log": false, "nft": false, "conntrack -E": true, "conntrack -L": true, "conntrack --delete -p tcp": true, "conntrack -C": false,
	} {
		if got := endless(strings.Fields(line)); got != want {
			t.Errorf("%s: %v", line, got)
		}
	}
}
