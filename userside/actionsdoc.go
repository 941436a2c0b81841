package userside

import (
	"bytes"
	"fmt"
	"io"
	"strings"
)

// WriteActionsDoc writes docs/userside-actions.md: every row of the table with
// its call in Go and on the command line.
func WriteActionsDoc(w io.Writer) error {
	var b bytes.Buffer
	b.WriteString(`# Actions of the ERP

<!-- Written by go test ./userside -run TestActionsDoc -update from the table of package userside. Do not edit. -->

Every action that usher knows, from one table: the client checks calls against it, the emulator
answers it, the command line takes its commands and flags from it. A test fails if one of them lacks an action.

* Each action is one method of ` + "`userside.Client`, one row of `usher emulator` and one command of `usher`" + `.
  ` + "`Client.Call`" + ` calls any of them by name, ` + "`--dry-run`" + ` shows the request with the key redacted.
* Names of parameters are those of the newest servers; older ones get the name in brackets. What the
  server's version lacks is refused before anything is sent.
* Writes travel by POST and are sent once. Reads are retried; of the writes, those that say
  *idempotent* are, if so configured.
* *Evidence* says how well the action is known: H documented or captured, M several clients agree, L inferred.

`)
	b.WriteString("| action | Go | command | kind | versions | evidence |\n|---|---|---|---|---|---|\n")
	for i := range table {
		a := &table[i]
		fmt.Fprintf(&b, "| [%s](#%s) | `%s` | `%s` | %s | %s | %s |\n",
			a.Label(), anchor(a.Label()), a.Method, command(a), docKind(a), docSpan(a.Since, a.Until), a.Confidence)
	}
	category := ""
	for i := range table {
		a := &table[i]
		if a.Category != category {
			category = a.Category
			fmt.Fprintf(&b, "\n## %s\n", category)
		}
		writeAction(&b, a)
	}
	_, err := w.Write(b.Bytes())
	return err
}

func writeAction(b *bytes.Buffer, a *Action) {
	fmt.Fprintf(b, "\n### %s\n\n%s%s.", a.Label(), strings.ToUpper(a.Summary[:1]), a.Summary[1:])
	if a.Notes != "" {
		b.WriteString(" " + a.Notes)
	}
	fmt.Fprintf(b, "\n\n* Go: `client.%s`; any action: `client.Call(ctx, %q, %q, args)`\n", a.Method, a.Category, a.Name)
	fmt.Fprintf(b, "* Command: `%s`\n", docExample(a))
	fmt.Fprintf(b, "* Emulator: `cat=%s&%s=%s`\n", a.Category, docParameter(a), a.Name)
	fmt.Fprintf(b, "* %s; answers %s; versions: %s; evidence: %s (section %s of the notes on the contract)\n",
		docKind(a), docAnswer(a.Answer), docSpan(a.Since, a.Until), a.Confidence, a.Section)
	if len(a.Params) == 0 {
		return
	}
	b.WriteString("\n| parameter | flag | value | versions | meaning |\n|---|---|---|---|---|\n")
	for i := range a.Params {
		p := &a.Params[i]
		name := "`" + p.Name + "`"
		if p.Was != "" {
			name += fmt.Sprintf(" (`%s` before %s)", p.Was, p.WasUntil)
		}
		fmt.Fprintf(b, "| %s | `--%s` | %s | %s | %s |\n", name, dashed(p.Name), docValue(p), docSpan(p.Since, p.Until), docHelp(p))
	}
}

func dashed(name string) string { return strings.ReplaceAll(name, "_", "-") }

func command(a *Action) string { return "usher " + a.Category + " " + dashed(a.Name) }

func anchor(heading string) string { return strings.ReplaceAll(heading, ".", "") }

func docParameter(a *Action) string {
	if a.Category == "module" {
		return "request"
	}
	return "action"
}

func docKind(a *Action) string {
	switch {
	case a.Danger:
		return "write, asks before"
	case a.Write && a.Idempotent:
		return "write, idempotent"
	case a.Write:
		return "write"
	}
	return "read"
}

func docAnswer(k AnswerKind) string {
	return [...]string{"OK", "the id", "ids", "rows", "an object keyed by id", "one object", "one value", "an object or list without envelope"}[k]
}

func docSpan(since, until Version) string {
	switch {
	case since.IsZero() && until.IsZero():
		return "all"
	case until.IsZero():
		return "since " + since.String()
	case since.IsZero():
		return "before " + until.String()
	}
	return since.String() + " until " + until.String()
}

func docValue(p *Param) string {
	words := make([]string, 0, len(p.Enum))
	for _, w := range p.Enum {
		word := "`" + w + "`"
		if v, ok := p.EnumSince[w]; ok {
			word += " (since " + v.String() + ")"
		}
		words = append(words, word)
	}
	if p.Kind == KindEnum {
		return strings.Join(words, ", ")
	}
	return strings.Join(append([]string{p.Kind.String()}, words...), ", ")
}

func docHelp(p *Param) string {
	var notes []string
	switch {
	case p.Required:
		notes = append(notes, "obligatory")
	case !p.RequiredUntil.IsZero():
		notes = append(notes, "obligatory before "+p.RequiredUntil.String())
	}
	if p.OneOf != "" {
		notes = append(notes, "one "+p.OneOf+" is obligatory")
	}
	if p.Needs != "" {
		notes = append(notes, "with `"+p.Needs+"`")
	}
	if p.Default != "" {
		notes = append(notes, "`"+p.Default+"` unless given")
	}
	if len(notes) == 0 {
		return p.Help
	}
	return p.Help + " (" + strings.Join(notes, "; ") + ")"
}

// docExample returns a command with every obligatory parameter and the first of each group.
func docExample(a *Action) string {
	line := command(a)
	groups := map[string]bool{}
	for i := range a.Params {
		p := &a.Params[i]
		if p.Required || p.OneOf != "" && !groups[p.OneOf] {
			groups[p.OneOf] = true
			line += " --" + dashed(p.Name) + " " + exampleValue(p)
		}
	}
	return line
}

// exampleValue returns a good value for a parameter.
func exampleValue(p *Param) string {
	switch p.Kind {
	case KindInt, KindID, KindIDs:
		switch p.Name {
		case "customer_id", "id", "dst_id":
			return "1001"
		case "src_id":
			return "1002"
		case "state_id":
			return "2"
		}
		return "7"
	case KindFlag:
		return "1"
	case KindIP:
		return "192.0.2.7"
	case KindMAC:
		return "00:00:5e:00:53:01"
	case KindDate, KindDateTime:
		return "2026-02-03"
	case KindMoney:
		return "12.50"
	case KindEnum:
		return p.Enum[0]
	case KindPrefixLen:
		return "29"
	default:
		return "TEXT"
	}
}
