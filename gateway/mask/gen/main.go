// Command gen writes the rules of gitleaks, as its own library reads them,
// into the file that package mask embeds. It is a module of its own: the
// library brings a configuration system along that no gateway needs.
//
//	go -C gateway/mask/gen run . >gateway/mask/gitleaks.json
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/viper"
	"github.com/zricethezav/gitleaks/v8/config"
)

type rule struct {
	ID       string   `json:"id"`
	Regex    string   `json:"regex"`
	Group    int      `json:"group,omitempty"`
	Entropy  float64  `json:"entropy,omitempty"`
	Keywords []string `json:"keywords"`
	Allow    []allow  `json:"allow,omitempty"`
}

type allow struct {
	Target    string   `json:"target,omitempty"` // "": the secret; "match", "line"
	All       bool     `json:"all,omitempty"`
	Regexes   []string `json:"regexes,omitempty"`
	StopWords []string `json:"stop_words,omitempty"`
}

type rules struct {
	Allow []allow `json:"allow"` // for every rule
	Rules []rule  `json:"rules"`
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	v := viper.New()
	v.SetConfigType("toml")
	if err := v.ReadConfig(strings.NewReader(config.DefaultConfig)); err != nil {
		return fmt.Errorf("read gitleaks' rules: %w", err)
	}
	var raw config.ViperConfig
	if err := v.Unmarshal(&raw); err != nil {
		return fmt.Errorf("decode gitleaks' rules: %w", err)
	}
	cfg, err := raw.Translate()
	if err != nil {
		return fmt.Errorf("compile gitleaks' rules: %w", err)
	}
	out := rules{Allow: allows(cfg.Allowlists)}
	for _, id := range cfg.OrderedRules {
		r := cfg.Rules[id]
		if r.Regex == nil || len(r.Keywords) == 0 || len(r.RequiredRules) > 0 {
			continue // found by a file's name, or only beside another: neither is there in a stream
		}
		out.Rules = append(out.Rules, rule{r.RuleID, r.Regex.String(), r.SecretGroup, r.Entropy, r.Keywords, allows(r.Allowlists)})
	}
	slices.SortFunc(out.Rules, func(a, b rule) int { return strings.Compare(a.ID, b.ID) })
	enc := json.NewEncoder(os.Stdout)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", " ")
	return enc.Encode(out)
}

// allows leaves out what speaks of files and commits.
func allows(lists []*config.Allowlist) (out []allow) {
	for _, l := range lists {
		all := l.MatchCondition == config.AllowlistMatchAnd
		if all && len(l.Paths)+len(l.Commits) > 0 || len(l.Regexes)+len(l.StopWords) == 0 {
			continue
		}
		a := allow{Target: l.RegexTarget, All: all, StopWords: l.StopWords}
		for _, re := range l.Regexes {
			a.Regexes = append(a.Regexes, re.String())
		}
		out = append(out, a)
	}
	return out
}
