// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"os"
	"regexp"
	"testing"

	"sluice/config"
)

// TestExamplesOfTheDocs: each example in the docs is a file that can be read.
func TestExamplesOfTheDocs(t *testing.T) {
	text, err := os.ReadFile("../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)\n```yaml\n(.*?)```").FindAllStringSubmatch(string(text), -1)
	if len(blocks) < 10 {
		t.Fatalf("%d examples", len(blocks))
	}
	for _, b := range blocks {
		if _, err := config.Parse([]byte(b[1])); err != nil {
			t.Errorf("%v, in\n%s", err, b[1])
		}
	}
}
