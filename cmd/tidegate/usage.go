package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"

	"github.com/tidegate/tidegate/access"
)

// parse reads flags, and nothing else.
func parse(flags *flag.FlagSet, args []string, std stdio) error {
	if err := parseFlags(flags, args, std); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("%w: got %s, want flags alone", errUsage, listed(flags.Args()))
	}
	return nil
}

// mixed parses flags that stand before, between or behind the words.
func mixed(flags *flag.FlagSet, args []string, std stdio) (words []string, err error) {
	for {
		if err := parseFlags(flags, args, std); err != nil {
			return nil, err
		}
		if args = flags.Args(); len(args) == 0 {
			return words, nil
		}
		words, args = append(words, args[0]), args[1:]
	}
}

// one parses a verb that takes exactly one argument, and flags in any place.
func one(flags *flag.FlagSet, args []string, std stdio, what string) (string, error) {
	words, err := mixed(flags, args, std)
	if err != nil {
		return "", err
	}
	if len(words) != 1 {
		return "", fmt.Errorf("%w: got %s, want %s", errUsage, listed(words), what)
	}
	return words[0], nil
}

// listed is what somebody typed, for a sentence.
func listed(words []string) string {
	if len(words) == 0 {
		return "nothing"
	}
	return strings.TrimSuffix(strings.TrimPrefix(fmt.Sprintf("%q", words), "["), "]")
}

// parseFlags reads the flags at the beginning of args. Asked for help, it
// prints what the verb takes; a mistake is told in one sentence, by exit.
func parseFlags(flags *flag.FlagSet, args []string, std stdio) error {
	flags.SetOutput(io.Discard)
	flags.Usage = func() {}
	err := flags.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		tellVerb(std.out, flags)
		return err
	}
	if err != nil {
		return fmt.Errorf("%w: %s", errUsage, flagMistake(flags, err))
	}
	return nil
}

// tellVerb prints what a verb does, and its flags as people write them.
func tellVerb(w io.Writer, flags *flag.FlagSet) {
	name, _, _ := strings.Cut(flags.Name(), " ")
	if v, ok := findVerb(name); ok {
		fmt.Fprintf(w, "%s\n%s\n", v.usage(), v.about)
	}
	head := fmt.Sprintf("\nflags of tidegate %s:\n", flags.Name())
	flags.VisitAll(func(f *flag.Flag) {
		io.WriteString(w, head)
		head = ""
		value, about := flag.UnquoteUsage(f)
		if f.DefValue != "" && f.DefValue != "0" && f.DefValue != "0s" && f.DefValue != "false" {
			about += " (default " + f.DefValue + ")"
		}
		fmt.Fprintf(w, "  %s\n        %s\n", strings.TrimSpace("--"+f.Name+" "+strings.ToUpper(value)), about)
	})
}

var badValue = regexp.MustCompile(`(?s)\Ainvalid (?:boolean )?value (".*") for (?:flag )?-([^:]+): (.*)\z`)

// flagMistake says in our form what package flag says in its own, with -x for
// what people write as --x.
func flagMistake(flags *flag.FlagSet, err error) string {
	said := err.Error()
	if name, ok := strings.CutPrefix(said, "flag provided but not defined: -"); ok {
		return fmt.Sprintf("there is no flag --%s; `tidegate %s -h` lists those that there are", name, flags.Name())
	}
	if name, ok := strings.CutPrefix(said, "flag needs an argument: -"); ok {
		return fmt.Sprintf("got --%s without a value, want %s behind it", name, wantedValue(flags.Lookup(name)))
	}
	m := badValue.FindStringSubmatch(said)
	if m == nil {
		return said
	}
	if strings.HasPrefix(m[3], "got ") { // by a function of ours
		return "--" + m[2] + ": " + m[3]
	}
	return fmt.Sprintf("got --%s %s, want %s", m[2], m[1], wantedValue(flags.Lookup(m[2])))
}

// wantedValue is what a flag takes.
func wantedValue(f *flag.Flag) string {
	if f == nil {
		return "a value"
	}
	if v, ok := f.Value.(flag.Getter); ok {
		switch v.Get().(type) {
		case time.Duration:
			return "a time such as 90s, 15m or 24h"
		case int, uint64:
			return "a whole number"
		case float64:
			return "a number"
		case bool:
			return "true or false"
		}
	}
	value, _ := flag.UnquoteUsage(f)
	return strings.ToUpper(value)
}

// checkWhy refuses a reason that says nothing, or too much.
func checkWhy(why string) error {
	if why == "" || len(why) > access.MaxWhy {
		return fmt.Errorf("%w: got --why of %d bytes, want 1 to %d", errUsage, len(why), access.MaxWhy)
	}
	return nil
}
