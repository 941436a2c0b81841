package erpcmd

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/usher-agent/usher/cmd/usher/internal/cli"
	"github.com/usher-agent/usher/userside"
)

// dashes returns the spelling of the command line: ip_add is ip-add.
func dashes(name string) string { return strings.ReplaceAll(name, "_", "-") }

// secretParam reports whether nobody may see what a parameter says.
func secretParam(name string) bool { return strings.HasPrefix(name, "pass_") }

// paramFlag is the flag of one parameter: what it takes is checked by its kind
// when the command line is read, so that a mistake names its flag.
type paramFlag struct {
	p     userside.Param
	value string
	set   bool
}

func (f *paramFlag) String() string { return f.value }

// Type is the placeholder in help texts; bool is the word for flags that need no value.
func (f *paramFlag) Type() string {
	if f.p.Kind == userside.KindFlag {
		return "bool"
	}
	return placeholder(f.p)
}

func (f *paramFlag) Set(text string) error {
	if f.p.Kind == userside.KindIDs && f.set {
		text = f.value + "," + text
	}
	v, err := wireText(f.p, text)
	if err != nil {
		return err
	}
	f.value, f.set = v, true
	return nil
}

func placeholder(p userside.Param) string {
	switch p.Kind {
	case userside.KindInt, userside.KindPrefixLen:
		return "NUMBER"
	case userside.KindID:
		return "ID"
	case userside.KindFlag:
		return "1|0"
	case userside.KindIP:
		return strings.Join(append([]string{"IP"}, p.Enum...), "|")
	case userside.KindMAC:
		return "MAC"
	case userside.KindDate:
		return "DATE"
	case userside.KindDateTime:
		return "TIME"
	case userside.KindMoney:
		return "AMOUNT"
	case userside.KindIDs:
		return "ID,..."
	case userside.KindEnum:
		return "WORD"
	default:
		return "TEXT"
	}
}

var (
	money  = regexp.MustCompile(`^[+-]?[0-9]{1,15}(\.[0-9]{1,6})?$`)
	clocks = []string{time.DateOnly, time.DateTime, "2006-01-02T15:04:05"}
)

// wireText checks what stands on the command line and gives it as the ERP wants it.
func wireText(p userside.Param, text string) (string, error) {
	if p.Kind != userside.KindText {
		text = strings.TrimSpace(text)
	}
	switch p.Kind {
	case userside.KindInt:
		if n, ok := stateWord(p, text); ok {
			return n, nil
		}
		return wholeNumber(text, 0, 1<<53, "want a whole number from 0")
	case userside.KindID:
		return wholeNumber(text, 1, 1<<53, "want a whole number from 1")
	case userside.KindPrefixLen:
		return wholeNumber(strings.TrimPrefix(text, "/"), 0, 32, "want a prefix length from 0 to 32")
	case userside.KindIDs:
		ids := strings.Split(text, ",")
		for i := range ids {
			var err error
			if ids[i], err = wholeNumber(strings.TrimSpace(ids[i]), 1, 1<<53, "want ids from 1 with commas between"); err != nil {
				return "", err
			}
		}
		return strings.Join(ids, ","), nil
	case userside.KindFlag:
		on, err := strconv.ParseBool(text)
		if err != nil {
			return "", errors.New("want 1 or 0")
		}
		return map[bool]string{true: "1", false: "0"}[on], nil
	case userside.KindIP:
		if slices.Contains(p.Enum, text) {
			return text, nil
		}
		if a, err := netip.ParseAddr(text); err != nil || !a.Is4() {
			return "", fmt.Errorf("want a dotted IPv4 address%s", orWords(p.Enum))
		}
	case userside.KindMAC:
		mac, err := userside.ParseMAC(text)
		if err != nil || mac == (userside.MAC{}) {
			return "", errors.New("want a hardware address such as 00:00:5e:00:53:01")
		}
		return mac.String(), nil
	case userside.KindDate:
		if _, err := time.Parse(time.DateOnly, text); err != nil {
			return "", errors.New("want a date such as 2026-01-31")
		}
	case userside.KindDateTime:
		for _, layout := range clocks {
			if _, err := time.Parse(layout, text); err == nil {
				return strings.Replace(text, "T", " ", 1), nil
			}
		}
		return "", errors.New(`want a date such as 2026-01-31, or with a time: "2026-01-31 15:04:05"`)
	case userside.KindMoney:
		if !money.MatchString(text) {
			return "", errors.New("want a decimal number such as 12.50 or -3")
		}
	case userside.KindEnum:
		if !inEnum(p.Enum, text) {
			return "", fmt.Errorf("want %s", strings.Join(p.Enum, ", "))
		}
	case userside.KindText:
		if strings.ContainsRune(text, 0) {
			return "", errors.New("holds a zero byte")
		}
	}
	return text, nil
}

func orWords(words []string) string {
	if len(words) == 0 {
		return ""
	}
	return " or one of " + strings.Join(words, ", ")
}

func wholeNumber(text string, low, high int64, want string) (string, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < low || n > high {
		return "", errors.New(want)
	}
	return strconv.FormatInt(n, 10), nil
}

// inEnum knows a final N as "digits" (additional_field_N).
func inEnum(words []string, text string) bool {
	for _, w := range words {
		if w == text {
			return true
		}
		if stem, ok := strings.CutSuffix(w, "_N"); ok {
			if digits, ok := strings.CutPrefix(text, stem+"_"); ok && digits != "" && strings.Trim(digits, "0123456789") == "" {
				return true
			}
		}
	}
	return false
}

// states are the words of the ERP's state numbers (API page section 4).
var states = []string{"stop", "pause", "active"}

func stateWord(p userside.Param, text string) (string, bool) {
	i := slices.Index(states, text)
	return strconv.Itoa(i), p.Name == "state_id" && i >= 0
}

// actionFlags are the parameters of one action on the command line.
type actionFlags struct {
	action  userside.Action
	values  []*paramFlag // as action.Params
	secrets []*string    // as action.Params: file of a secret parameter, nil for the others
}

func newActionFlags(cmd *cobra.Command, a userside.Action) *actionFlags {
	f := &actionFlags{action: a}
	for _, p := range a.Params {
		v := &paramFlag{p: p}
		name := dashes(p.Name)
		cmd.Flags().Var(v, name, paramHelp(p))
		if p.Kind == userside.KindFlag {
			cmd.Flags().Lookup(name).NoOptDefVal = "true"
		}
		cli.Must(cmd.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(completions(p), cobra.ShellCompDirectiveNoFileComp)))
		var file *string
		if secretParam(p.Name) {
			file = cmd.Flags().String(name+"-file", "", "file that holds what --"+name+" would say, which is then in no list of processes; -: standard input")
			cli.Must(cmd.MarkFlagFilename(name + "-file"))
		}
		f.values, f.secrets = append(f.values, v), append(f.secrets, file)
	}
	return f
}

func completions(p userside.Param) []string {
	switch {
	case p.Name == "state_id":
		return []string{"0\tstop", "1\tpause", "2\tactive", "stop", "pause", "active"}
	case p.Kind == userside.KindFlag:
		return []string{"1", "0"}
	case p.Kind == userside.KindEnum || p.Kind == userside.KindIP:
		words := slices.Clone(p.Enum)
		for i, w := range words {
			if v, ok := p.EnumSince[w]; ok {
				words[i] += "\tsince " + v.String()
			}
		}
		return words
	}
	return nil
}

// paramHelp is the line of a parameter in the help text.
func paramHelp(p userside.Param) string {
	s := p.Help
	if p.Kind == userside.KindEnum && p.Name != "is_online" {
		s += ": " + strings.Join(p.Enum, ", ")
	}
	var notes []string
	switch {
	case p.Required:
		notes = append(notes, "required")
	case p.OneOf != "":
		notes = append(notes, "one of these is required")
	}
	if !p.RequiredUntil.IsZero() {
		notes = append(notes, "required before "+p.RequiredUntil.String())
	}
	if p.Needs != "" {
		notes = append(notes, "with --"+dashes(p.Needs))
	}
	if p.Default != "" {
		notes = append(notes, "sent as "+p.Default+" unless given")
	}
	if !p.Since.IsZero() {
		notes = append(notes, "since "+p.Since.String())
	}
	if !p.Until.IsZero() {
		notes = append(notes, "until "+p.Until.String())
	}
	if p.Was != "" {
		notes = append(notes, p.Was+" before "+p.WasUntil.String())
	}
	if len(notes) > 0 {
		s += " (" + strings.Join(notes, "; ") + ")"
	}
	return s
}

// args returns what the flags say. It reads secrets from their files and checks
// what one flag cannot know: what is missing, and what goes together.
func (f *actionFlags) args(stdin io.Reader) (url.Values, error) {
	out := url.Values{}
	for i, v := range f.values {
		file := f.secrets[i]
		if file != nil && *file != "" {
			flag := "--" + dashes(v.p.Name)
			if v.set {
				return nil, cli.Usage(fmt.Errorf("%s and %s-file: want one of them", flag, flag))
			}
			text, err := readSecret(flag+"-file", *file, stdin)
			if err != nil {
				return nil, err
			}
			v.value, v.set = text, true
		}
		if v.set {
			out.Set(v.p.Name, v.value)
		}
	}
	return out, checkTogether(f.action, out, func(p userside.Param) string {
		if secretParam(p.Name) {
			return fmt.Sprintf("--%s or --%[1]s-file", dashes(p.Name))
		}
		return "--" + dashes(p.Name)
	})
}

// checkTogether checks what is missing; name gives the spelling of a parameter
// for the error.
func checkTogether(a userside.Action, args url.Values, name func(userside.Param) string) error {
	var missing []string
	groups := map[string][]string{} // parameters of each group, unless one is given
	var order []string
	for _, p := range a.Params {
		if p.Required && args.Get(p.Name) == "" {
			missing = append(missing, name(p))
		}
		if p.OneOf != "" && groups[p.OneOf] == nil {
			order = append(order, p.OneOf)
		}
		if p.OneOf != "" {
			groups[p.OneOf] = append(groups[p.OneOf], name(p))
		}
		if p.Needs != "" && args.Has(p.Name) && !args.Has(p.Needs) {
			other, _ := a.Param(p.Needs)
			return cli.Usage(fmt.Errorf("%s goes with %s", name(p), name(*other)))
		}
	}
	if len(missing) > 0 {
		return cli.Usage(fmt.Errorf("missing: %s", strings.Join(missing, ", ")))
	}
	for _, g := range order {
		if !slices.ContainsFunc(a.Params, func(p userside.Param) bool { return p.OneOf == g && args.Has(p.Name) }) {
			return cli.Usage(fmt.Errorf("missing: at least one of %s", strings.Join(groups[g], ", ")))
		}
	}
	return nil
}

// secretsIn returns the values of args that must not be shown.
func secretsIn(args url.Values) []string {
	var out []string
	for name := range args {
		if v := args.Get(name); secretParam(name) && v != "" {
			out = append(out, v)
		}
	}
	return out
}
