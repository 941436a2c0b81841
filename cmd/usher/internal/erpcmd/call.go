package erpcmd

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"maps"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/usher-agent/usher/cmd/usher/internal/cli"
	"github.com/usher-agent/usher/provision/audit"
	"github.com/usher-agent/usher/userside"
)

const redactedText = "[redacted]"

// actionCall is one call of an action from the command line.
type actionCall struct {
	*cli.Program
	cmd    *cobra.Command
	access *erpAccess
	raw    bool
	dryRun bool
	yes    bool
}

// callFlags adds the flags that every call has, and the way to the ERP.
func callFlags(c *cli.Program, cmd *cobra.Command) *actionCall {
	call := &actionCall{Program: c, cmd: cmd}
	cmd.Flags().BoolVar(&call.raw, "raw", false, "print the answer as the server wrote it")
	cmd.Flags().BoolVar(&call.dryRun, "dry-run", false, "print the request, the key redacted, and send nothing")
	call.access = erpFlags(c, cmd)
	return call
}

// dangerFlag adds --yes.
func (call *actionCall) dangerFlag() {
	call.cmd.Flags().BoolVarP(&call.yes, "yes", "y", false, "do not ask whether it is meant")
}

// run sends the action, or shows what it would send.
func (call *actionCall) run(a userside.Action, args url.Values) error {
	if call.raw && call.Output == "json" {
		return cli.Usage(errors.New("--raw and --output json: want one of them"))
	}
	client, err := call.access.client(call.cmd.InOrStdin(), call.dryRun)
	if err != nil {
		return err
	}
	defer client.CloseIdle()
	if call.dryRun {
		return call.show(client, a, args)
	}
	if a.Danger {
		if err := call.confirm(client, a, args); err != nil {
			return err
		}
	}
	answer, err := call.send(client, a, args)
	told := advise(err, a, secretsIn(args))
	lost := told
	if told = call.readBack(client, a, args, told); told == nil {
		err = nil
	}
	if a.Write && wasSent(err) {
		call.audit(a, args, resultOf(err), lost)
	}
	switch {
	case told != nil:
		return told
	case lost != nil:
		return call.printFound(a, args, lost)
	}
	return call.print(a, args, answer)
}

// send calls the action. Which spelling of an address or a MAC a server looks for is
// documented nowhere, so what is not found is looked for once in the other one.
func (call *actionCall) send(client *userside.Client, a userside.Action, args url.Values) (*userside.Answer, error) {
	answer, err := client.Call(call.cmd.Context(), a.Category, a.Name, args)
	if _, lookup := a.Param("data_typer"); !lookup || err != nil && !errors.Is(err, userside.ErrNotFound) || err == nil && !noID(answer) {
		return answer, err
	}
	given := args.Get("data_value")
	for _, other := range userside.Spellings(userside.Lookup(args.Get("data_typer")), given) {
		if other == given {
			continue
		}
		again := maps.Clone(args)
		again.Set("data_value", other)
		return client.Call(call.cmd.Context(), a.Category, a.Name, again)
	}
	return answer, err
}

// noID reports whether a look-up that succeeded found nobody.
func noID(answer *userside.Answer) bool {
	data := answer.Data()
	return data == nil || isZero(data)
}

// audit records a call that changes something; err is how it ended, without secrets.
func (call *actionCall) audit(a userside.Action, args url.Values, result audit.Result, err error) {
	shown := make(map[string]string, len(args))
	for name := range args {
		shown[name] = args.Get(name)
		if secretParam(name) {
			shown[name] = redactedText
		}
	}
	cli.Audit(call.cmd, call.access.stateDir, audit.Record{Act: audit.CallERP, Result: result, What: audit.What{Action: a.Label(), Arguments: shown}}, err)
}

// wasSent reports whether a call left this host; err is its error.
func wasSent(err error) bool {
	return !errors.Is(err, userside.ErrArgument) && !errors.Is(err, userside.ErrUnsupported)
}

func resultOf(err error) audit.Result {
	switch {
	case err == nil:
		return audit.Done
	case errors.Is(err, userside.ErrUncertain):
		return audit.Uncertain
	case errors.Is(err, userside.ErrRefused), errors.Is(err, userside.ErrNotFound), errors.Is(err, userside.ErrPermission):
		return audit.Refused
	default:
		return audit.Failed
	}
}

// show prints what would be sent.
func (call *actionCall) show(client *userside.Client, a userside.Action, args url.Values) error {
	p, err := client.Prepare(a.Category, a.Name, args)
	if err != nil {
		return advise(err, a, secretsIn(args))
	}
	for name := range p.Form {
		if secretParam(name) {
			p.Form.Set(name, redactedText)
		}
	}
	rules := p.Level.Version.String()
	w := call.cmd.OutOrStdout()
	if call.Output == "json" {
		return printDecoded(w, object{
			{Key: "method", Value: p.Method}, {Key: "url", Value: p.URL}, {Key: "form", Value: formObject(p.Form)}, {Key: "erp_version", Value: rules},
		})
	}
	if _, err := fmt.Fprintf(w, "%s %s\n", p.Method, p.URL); err != nil {
		return err
	}
	var rows [][]string
	for _, e := range formObject(p.Form) {
		rows = append(rows, []string{"  " + e.Key, fmt.Sprint(e.Value)})
	}
	if err := (sheet{rows: rows}).write(w, 0); err != nil {
		return err
	}
	if rules == "" {
		rules = "the newest version of the ERP"
	} else {
		rules = "version " + rules
	}
	_, err = fmt.Fprintf(call.cmd.ErrOrStderr(), "nothing was sent; by the rules of %s (--erp-version sets another)\n", rules)
	return err
}

func formObject(form url.Values) object {
	out := object{}
	for name := range form {
		out = append(out, userside.Entry[any]{Key: name, Value: form.Get(name)})
	}
	slices.SortFunc(out, func(a, b userside.Entry[any]) int { return strings.Compare(a.Key, b.Key) })
	return out
}

// confirm asks a person on a terminal; elsewhere only --yes will do.
func (call *actionCall) confirm(client *userside.Client, a userside.Action, args url.Values) error {
	if call.yes {
		return nil
	}
	in, ok := call.cmd.InOrStdin().(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		return cli.Usage(fmt.Errorf("%s cannot be undone: say --yes if it is meant (nothing was sent)", commandOf(a)))
	}
	fmt.Fprintf(call.cmd.ErrOrStderr(), "%s: %s (%s). This cannot be undone.\n%sType yes to go on: ",
		commandOf(a), a.Summary, named(a, args), call.who(client, a, args))
	line := make(chan string, 1)
	// The read cannot be ended from here; it ends with the program, or with the line.
	go func() {
		text, _ := bufio.NewReader(in).ReadString('\n') // no answer is no
		line <- text
	}()
	select {
	case <-call.cmd.Context().Done():
		return errors.New("interrupted; nothing was sent")
	case text := <-line:
		if strings.TrimSpace(text) != "yes" {
			return errors.New("not confirmed; nothing was sent")
		}
		return nil
	}
}

// who describes the customers that an action is about, so that a wrong id is
// seen before it is too late. What cannot be looked up is said to be so.
func (call *actionCall) who(client *userside.Client, a userside.Action, args url.Values) string {
	var b strings.Builder
	for _, p := range a.Params {
		if a.Category != "customer" || p.Kind != userside.KindID || !args.Has(p.Name) {
			continue
		}
		fmt.Fprintf(&b, "  %s %s: ", dashes(p.Name), args.Get(p.Name))
		answer, err := client.Call(call.cmd.Context(), "customer", "get_data", url.Values{"customer_id": {args.Get(p.Name)}})
		card, ok := object(nil), false
		if err == nil {
			card, ok = readable(answer.Data()).(object)
		}
		if !ok {
			b.WriteString("cannot be looked up\n")
			continue
		}
		var parts []string
		for _, key := range []string{"full_name", "login", "account_number", "state_id", "balance", "ip_mac"} {
			v, _ := card.Get(key)
			if text := compact(key, v); text != "" {
				parts = append(parts, dashes(strings.TrimSuffix(key, "_id"))+" "+text)
			}
		}
		b.WriteString(shorten(strings.Join(parts, ", "), 200) + "\n")
	}
	return b.String()
}

func commandOf(a userside.Action) string { return a.Category + " " + dashes(a.Name) }

// named returns the arguments that name what is changed.
func named(a userside.Action, args url.Values) string {
	var parts []string
	for _, p := range a.Params {
		if p.Required && args.Has(p.Name) && !secretParam(p.Name) {
			parts = append(parts, dashes(p.Name)+" "+args.Get(p.Name))
		}
	}
	return strings.Join(parts, ", ")
}

// print shows an answer as the flags want it.
func (call *actionCall) print(a userside.Action, args url.Values, answer *userside.Answer) error {
	w, errs := call.cmd.OutOrStdout(), call.cmd.ErrOrStderr()
	if call.raw {
		text := answer.Raw()
		if !cli.IsTerminal(w) { // there the bytes are nobody's to change
			w = cli.Beneath(w)
		}
		if _, err := w.Write(text); err != nil {
			return err
		}
		if answer.RawTruncated() {
			return errors.New("the answer is too large and was cut off")
		}
		if !bytes.HasSuffix(text, []byte("\n")) && cli.IsTerminal(w) {
			_, err := fmt.Fprintln(w)
			return err
		}
		return nil
	}
	if answer.RawTruncated() {
		return errors.New("the answer is too large to be shown")
	}
	data, missing := tidy(a, args, answer.Data())
	if looksForOne(a) && isZero(data) {
		data = nil // id 0: nobody
	}
	if a.Name == "add" && data == nil {
		return &advised{a.Label() + ": the answer has no id\nnext: the ERP may have created the customer all the same: look before doing it again", userside.ErrUnknownShape}
	}
	if data == nil && a.Answer == userside.AnswerOK {
		return call.printDone(a, args)
	}
	s := layOut(scalarKey(a), data)
	if len(s.rows) == 0 && looksForOne(a) {
		return &advised{a.Label() + ": not found\nnext: " + notFoundAdvice, userside.ErrNotFound}
	}
	if len(missing) > 0 {
		if _, err := fmt.Fprintf(errs, "not found: %s\n", strings.Join(missing, ", ")); err != nil {
			return err
		}
	}
	if call.Output == "json" {
		return printDecoded(w, data)
	}
	if len(s.rows) == 0 {
		_, err := fmt.Fprintln(errs, "the ERP has nothing to show")
		return err
	}
	if err := s.write(w, terminalWidth(w)); err != nil {
		return err
	}
	if s.total > len(s.head) {
		_, err := fmt.Fprintf(errs, "%d of %d fields shown; all of them: --output json\n", len(s.head), s.total)
		return err
	}
	return nil
}

// printDone says that a change was made of which there is nothing else to show.
func (call *actionCall) printDone(a userside.Action, args url.Values) error {
	w := call.cmd.OutOrStdout()
	if call.Output == "json" {
		return printDecoded(w, object{{Key: "ok", Value: true}})
	}
	_, err := fmt.Fprintf(w, "done: %s\n", strings.TrimSuffix(fmt.Sprintf("%s (%s)", commandOf(a), named(a, args)), " ()"))
	return err
}

const notFoundAdvice = "the ERP has nothing under these words; look for it another way"

// looksForOne reports whether an empty answer means that something is not there.
func looksForOne(a userside.Action) bool {
	_, lookup := a.Param("data_typer")
	return a.Answer == userside.AnswerRecord || lookup
}

// isZero reports an answer of nothing but 0, as servers write an id that is not there.
func isZero(data any) bool {
	switch v := data.(type) {
	case json.Number:
		return v == "0"
	case string:
		return v == "0"
	}
	return false
}

// scalarKey returns the name under which a bare value is known.
func scalarKey(a userside.Action) string {
	if a.Name == "get_last_ip" {
		return "ip"
	}
	return ""
}

// advise adds what to do next to a failure, makes a mistake of the command line
// one, and keeps secrets that the server may have repeated out of it.
func advise(err error, a userside.Action, secrets []string) error {
	var e *userside.Error
	if !errors.As(err, &e) {
		return err
	}
	text := strings.TrimPrefix(err.Error(), "userside: ")
	for _, s := range secrets {
		for _, spelling := range []string{s, url.QueryEscape(s), url.PathEscape(s), html.EscapeString(s)} {
			text = hide(text, spelling)
		}
	}
	next := ""
	switch {
	case errors.Is(err, userside.ErrUnsupported):
		next = "the server is too old or too new for this; --erp-version says another version if it was told wrong"
	case errors.Is(err, userside.ErrArgument):
		return cli.Usage(errors.New(text))
	case errors.Is(err, userside.ErrUncertain):
		text += "\n" + cli.ErrUncertain.Error()
		next, err = uncertainAdvice(err), errors.Join(cli.ErrUncertain, err)
	case errors.Is(err, context.DeadlineExceeded):
		next = "the ERP was slower than --timeout; with a longer one it may still answer"
	case errors.Is(err, context.Canceled):
		next = "interrupted"
	case errors.Is(err, userside.ErrPermission):
		next = "check the key, and its entry in the ERP: the address of this host and the section " + a.Category + " must be allowed"
	case errors.Is(err, userside.ErrNotFound):
		next = notFoundAdvice
	case errors.Is(err, userside.ErrUnavailable):
		next = "check the address of the ERP and the way to it; nothing on this host is wrong otherwise"
		if e.Status >= http.StatusInternalServerError {
			next = "the ERP itself is in trouble: its log says why"
		}
	case errors.Is(err, userside.ErrTooLarge):
		next = "if the ERP is right and the answer as large as that, raise the limit in the configuration"
	case errors.Is(err, userside.ErrMalformed):
		next = "what answered is not the API: check that the address leads to the ERP's own /api.php, not to a login page or a proxy"
	case errors.Is(err, userside.ErrUnknownShape):
		next = "--raw shows the answer as it came"
	case errors.Is(err, userside.ErrRefused):
		next = "the ERP understood and said no"
	}
	if next == "" {
		return &advised{text, err}
	}
	return &advised{text + "\nnext: " + next, err}
}

// uncertainAdvice is for a change of which nobody knows whether it was made.
func uncertainAdvice(err error) string {
	switch {
	case errors.Is(err, context.Canceled):
		return "interrupted; the ERP may have done it all the same"
	case errors.Is(err, context.DeadlineExceeded):
		return "the ERP may have done it all the same: look before doing it again, then try a longer --timeout"
	case errors.Is(err, userside.ErrUnknownShape):
		return "a hook in the ERP seems to have answered in its place, and says neither yes nor no: look before doing it again"
	}
	return "no answer of the API came, and the ERP may have done it all the same: look before doing it again"
}

// hide takes a secret out of an error's text, also where the text was cut off
// inside of it.
func hide(text, secret string) string {
	text = strings.ReplaceAll(text, secret, redactedText)
	body, cut := strings.CutSuffix(text, "...")
	for n := len(secret) - 1; cut && n > 2; n-- {
		if rest, ok := strings.CutSuffix(body, secret[:n]); ok {
			return rest + redactedText + "..."
		}
	}
	return text
}

// advised is a failure with its advice. The text replaces that of the error,
// which may hold a secret.
type advised struct {
	text string
	err  error
}

func (e *advised) Error() string { return e.text }
func (e *advised) Unwrap() error { return e.err }
