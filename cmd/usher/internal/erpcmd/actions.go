package erpcmd

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/usher-agent/usher/cmd/usher/internal/cli"
	"github.com/usher-agent/usher/userside"
)

// Groups of commands in help texts.
const (
	groupAgent   = "agent"
	groupLookups = "lookups"
	groupChanges = "changes"
)

// newCategory makes the command of a category of the ERP with one sub-command
// per action of the table.
func newCategory(c *cli.Program, category, short, long string) *cobra.Command {
	cmd := &cobra.Command{
		Use:     category,
		Short:   short,
		Long:    long,
		Args:    cli.Subcommand,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		Example: "",
	}
	addActions(c, cmd, category)
	cmd.Example = categoryExample(category)
	return cmd
}

func newNeighbours(c *cli.Program) []*cobra.Command {
	const long = `The ERP is asked directly, with the address and the key of the configuration (or --url and --key-file).
"usher %[1]s ACTION --help" tells all about an action.`
	var out []*cobra.Command
	for _, n := range []struct{ category, short string }{
		{"device", "Look up switches, OLTs, ONUs and MACs in the ERP"},
		{"commutation", "Look up in the ERP what is connected to what"},
		{"tariff", "Look up tariffs in the ERP"},
		{"module", "Look up what the ERP tells its modules"},
		{"system", "Look up version and clock of the ERP"},
	} {
		out = append(out, newCategory(c, n.category, n.short, n.short+".\n\n"+fmt.Sprintf(long, n.category)))
	}
	return out
}

// addActions adds one command per action of a category.
func addActions(c *cli.Program, parent *cobra.Command, category string) {
	var lookups, changes bool
	for _, a := range userside.Actions() {
		if a.Category != category {
			continue
		}
		lookups, changes = lookups || !a.Write, changes || a.Write
		parent.AddCommand(newAction(c, a))
	}
	if lookups {
		parent.AddGroup(&cobra.Group{ID: groupLookups, Title: "Look-ups in the ERP:"})
	}
	if changes {
		parent.AddGroup(&cobra.Group{ID: groupChanges, Title: "Changes in the ERP, made directly:"})
	}
}

// newAction makes the command of one action.
func newAction(c *cli.Program, a userside.Action) *cobra.Command {
	cmd := &cobra.Command{
		Use:               actionUse(a),
		Short:             upper(a.Summary),
		Long:              actionLong(a),
		Example:           actionExample(a),
		GroupID:           groupLookups,
		Args:              cli.Exactly(0),
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	if a.Write {
		cmd.GroupID = groupChanges
	}
	if d := dashes(a.Name); d != a.Name {
		cmd.Aliases = []string{a.Name}
	}
	cmd.Flags().SortFlags = false
	flags := newActionFlags(cmd, a)
	call := callFlags(c, cmd)
	if a.Danger {
		call.dangerFlag()
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		args, err := flags.args(cmd.InOrStdin())
		if err != nil {
			return err
		}
		return call.run(a, args)
	}
	cmd.SetUsageFunc(func(cmd *cobra.Command) error { return actionUsage(cmd, a) })
	return cmd
}

func upper(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

// actionUse names the flags that cannot be left out.
func actionUse(a userside.Action) string {
	s := dashes(a.Name)
	for _, p := range a.Params {
		if p.Required {
			s += " --" + dashes(p.Name) + " " + placeholder(p)
		}
	}
	return s
}

func actionLong(a userside.Action) string {
	var b strings.Builder
	b.WriteString(upper(a.Summary) + ".\n")
	if a.Notes != "" {
		b.WriteString("\n" + a.Notes + "\n")
	}
	if a.Danger {
		b.WriteString("\nThis cannot be undone: on a terminal it asks, elsewhere it wants --yes.\n")
	}
	if changesState(a) {
		b.WriteString("\n" + stateChangeNote + "\n")
	}
	word := "action"
	if a.Category == "module" {
		word = "request"
	}
	fmt.Fprintf(&b, "\nIn the ERP: cat=%s, %s=%s, %s.\n", a.Category, word, a.Name, span(a))
	fmt.Fprintf(&b, "See docs/userside-actions.md (section %s of the notes on the contract); %s.", a.Section, confidence(a.Confidence))
	return b.String()
}

const stateChangeNote = `This talks to the ERP alone: a running agent learns of it at its next poll or by the ERP's hook.
"usher customer pause|stop|resume" go through the agent instead, which applies the state to the kernel at once.

The ERP is told once. If its answer is lost, or says neither yes nor no, the customer's card is looked at for half a minute; if that
does not show the state either, it is not known whether the ERP has taken the change: exit code 3.`

func span(a userside.Action) string {
	switch {
	case !a.Since.IsZero() && !a.Until.IsZero():
		return fmt.Sprintf("from version %s until %s", a.Since, a.Until)
	case !a.Since.IsZero():
		return "since version " + a.Since.String()
	case !a.Until.IsZero():
		return "gone since version " + a.Until.String()
	default:
		return "in all versions"
	}
}

func confidence(c string) string {
	switch c {
	case "H":
		return "confidence high: documented by the vendor, or seen on a real server"
	case "M":
		return "confidence medium: several clients agree"
	default:
		return "confidence low: the answer is documented nowhere, so look at it with --raw first"
	}
}

// exampleValue returns a value of the documentation's own ranges.
func exampleValue(p userside.Param) string {
	switch p.Name {
	case "data_typer":
		return "ip"
	case "data_value":
		return "192.0.2.17"
	case "dst_id":
		return "1002"
	case "state_id":
		return "2"
	case "interface_list":
		return "1,2"
	case "dataset":
		return "id,name,host"
	case "coordinates":
		return "50.45,30.52"
	}
	switch p.Kind {
	case userside.KindInt:
		return "1"
	case userside.KindID, userside.KindIDs:
		if strings.HasSuffix(p.Name, "customer_id") || p.Name == "id" || p.Name == "src_id" {
			return "1001"
		}
		return "7"
	case userside.KindPrefixLen:
		return "29"
	case userside.KindFlag:
		return "1"
	case userside.KindIP:
		return "192.0.2.17"
	case userside.KindMAC:
		return "00:00:5e:00:53:01"
	case userside.KindDate, userside.KindDateTime:
		return "2026-01-31"
	case userside.KindMoney:
		return "12.50"
	case userside.KindEnum:
		return p.Enum[0]
	default:
		return "example"
	}
}

// exampleFlags returns a call that is complete: what is required, one of each group.
func exampleFlags(a userside.Action) []string {
	var out []string
	done := map[string]bool{}
	for _, p := range a.Params {
		first := p.OneOf != "" && !done[p.OneOf]
		if !p.Required && !first && !exampleWorthy(a, p) {
			continue
		}
		done[p.OneOf] = true
		switch {
		case secretParam(p.Name):
			out = append(out, "--"+dashes(p.Name)+"-file", "-")
		case p.Kind == userside.KindFlag:
			out = append(out, "--"+dashes(p.Name))
		default:
			out = append(out, "--"+dashes(p.Name), exampleValue(p))
		}
	}
	return out
}

// exampleWorthy are parameters without which an example would be odd.
func exampleWorthy(a userside.Action, p userside.Param) bool {
	switch a.Name {
	case "add":
		return p.Name == "fio"
	case "edit":
		return p.Name == "phone0"
	}
	return false
}

func actionExample(a userside.Action) string {
	line := "usher " + a.Category + " " + dashes(a.Name)
	if flags := exampleFlags(a); len(flags) > 0 {
		line += " " + strings.Join(flags, " ")
	}
	if a.Write {
		return "  " + line + "\n  " + line + " --dry-run"
	}
	return "  " + line + "\n  " + line + " --output json"
}

func categoryExample(category string) string {
	var lines []string
	for _, a := range userside.Actions() {
		if a.Category == category && len(lines) < 3 {
			first, _, _ := strings.Cut(actionExample(a), "\n")
			lines = append(lines, first)
		}
	}
	return strings.Join(lines, "\n")
}

// actionUsage is cobra's usage with the parameters of the action apart from the
// flags that every call has.
func actionUsage(cmd *cobra.Command, a userside.Action) error {
	var names []string
	for _, p := range a.Params {
		names = append(names, dashes(p.Name))
		if secretParam(p.Name) {
			names = append(names, dashes(p.Name)+"-file")
		}
	}
	access := []string{"config", "url", "key-file", "ca-file", "insecure-skip-verify", "erp-version", "timeout"}
	var b strings.Builder
	fmt.Fprintf(&b, "Usage:\n  %s\n", cmd.UseLine())
	if len(cmd.Aliases) > 0 {
		fmt.Fprintf(&b, "\nAliases:\n  %s\n", cmd.NameAndAliases())
	}
	fmt.Fprintf(&b, "\nExamples:\n%s\n", cmd.Example)
	for _, s := range []struct {
		title string
		names []string
	}{{"Parameters", names}, {"Flags", []string{"dry-run", "raw", "yes", "help"}}, {"Way to the ERP", access}} {
		part := &cobra.Command{}
		part.Flags().SortFlags = false
		for _, n := range s.names {
			if f := cmd.Flags().Lookup(n); f != nil {
				part.Flags().AddFlag(f)
			}
		}
		if text := part.Flags().FlagUsages(); text != "" {
			fmt.Fprintf(&b, "\n%s:\n%s", s.title, text)
		}
	}
	fmt.Fprintf(&b, "\nGlobal Flags:\n%s", cmd.InheritedFlags().FlagUsages())
	_, err := fmt.Fprint(cmd.ErrOrStderr(), b.String())
	return err
}

// newERPCall makes "usher erp call": any action of the table by the ERP's own names.
func newERPCall(c *cli.Program) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "call CATEGORY ACTION [NAME=VALUE]...",
		Short: "Call any action of the ERP that usher knows, by the ERP's names",
		Long: `call sends one action with its parameters as NAME=VALUE, by the names that the newest servers have. What
the ERP's version calls otherwise is renamed; what it lacks is told before anything is sent.

pass_new_file=FILE stands for pass_new and takes the password from a file (-: standard input).`,
		Example: `  usher erp call customer get_data customer_id=1001
  usher erp call module get_user_state_list --output json
  usher erp call customer ip_add customer_id=1001 value=192.0.2.17 --dry-run`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) < 2 {
				return cli.Usage(fmt.Errorf("%s: want a category and an action (%s)", cmd.CommandPath(), cmd.UseLine()))
			}
			return nil
		},
		ValidArgsFunction: completeCall,
	}
	call := callFlags(c, cmd)
	call.dangerFlag()
	cmd.RunE = func(cmd *cobra.Command, words []string) error {
		a, err := findAction(words[0], words[1])
		if err != nil {
			return err
		}
		args, err := readArgs(a, words[2:], cmd.InOrStdin())
		if err != nil {
			return err
		}
		return call.run(a, args)
	}
	return cmd
}

func findAction(category, name string) (userside.Action, error) {
	name = strings.ReplaceAll(name, "-", "_")
	if a, ok := userside.FindAction(category, name); ok {
		return a, nil
	}
	var categories, names []string
	for _, a := range userside.Actions() {
		if !slices.Contains(categories, a.Category) {
			categories = append(categories, a.Category)
		}
		if a.Category == category {
			names = append(names, a.Name)
		}
	}
	if len(names) == 0 {
		return userside.Action{}, cli.Usage(fmt.Errorf("unknown category %q: want %s", category, strings.Join(categories, ", ")))
	}
	return userside.Action{}, cli.Usage(fmt.Errorf("unknown action %q of category %s: want %s", name, category, strings.Join(names, ", ")))
}

func completeCall(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	var out []string
	add := func(s string) {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	for _, a := range userside.Actions() {
		switch {
		case len(args) == 0:
			add(a.Category)
		case a.Category != args[0]:
		case len(args) == 1:
			add(a.Name + "\t" + a.Summary)
		case a.Name == args[1]:
			for _, p := range a.Params {
				if !slices.ContainsFunc(args[2:], func(s string) bool { return strings.HasPrefix(s, p.Name+"=") }) {
					add(p.Name + "=\t" + paramHelp(p))
				}
			}
			return out, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}
