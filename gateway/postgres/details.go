package postgres

import (
	"slices"
	"strings"

	"github.com/tidegate/tidegate/gateway/postgres/backing"
)

// stateViewCheck is what a row that breaks a view's WITH CHECK OPTION raises.
const stateViewCheck = "44000"

// stateForeignKey is what a row raises that is referred to, or refers to none.
const stateForeignKey = "23503"

const withheld = "Left out: it may hold values of masked columns."

// withoutValues is an ErrorResponse as the client may see it. An error about a
// row of a masked table holds that row in its detail: the first lock leaves
// out the columns that the role can't read, this is the second.
func withoutValues(msg []byte, plan backing.Backing) []byte {
	if len(plan.Masked) == 0 {
		return msg
	}
	fields := allFields(msg[headSize:])
	code := fields.value('C')
	if !strings.HasPrefix(code, "23") && code != stateViewCheck || fields.value('D') == "" || !mayBeMasked(fields, plan) {
		return msg
	}
	var body []byte
	for _, f := range fields {
		if f.kind == 'D' {
			f.value = withheld
		}
		body = append(append(append(body, f.kind), f.value...), 0)
	}
	return message('E', append(body, 0))
}

// mayBeMasked reports whether an error is about a row of a masked table, or
// does not say of which. That of a foreign key says of which table the key is,
// and may show the row that it refers to, whose table stands in the message.
func mayBeMasked(fields reportFieldList, plan backing.Backing) bool {
	schema, table := fields.value('s'), fields.value('t')
	refers := fields.value('C') == stateForeignKey
	return table == "" || slices.ContainsFunc(plan.Masked, func(t backing.MaskedTable) bool {
		return t.Table == table && (schema == t.Schema || schema == t.MaskSchema) || refers && strings.Contains(fields.value('M'), t.Table)
	})
}

// forTheLog reports whether a notice is one that the target writes for its log,
// where some tables are met through views alone. A client gets those when it
// asks for them by client_min_messages; what triggers and extensions say there,
// of rows or of the statements inside of functions, has passed no view. One too
// large to be looked at has no bytes, and may be such.
func forTheLog(msg []byte, plan backing.Backing) bool {
	if len(plan.Masked) == 0 {
		return false
	}
	return msg == nil || !slices.Contains([]string{"NOTICE", "WARNING", "INFO"}, allFields(msg[headSize:]).value('V'))
}

type reportField struct {
	kind  byte
	value string
}

type reportFieldList []reportField

func (l reportFieldList) value(kind byte) string {
	for _, f := range l {
		if f.kind == kind {
			return f.value
		}
	}
	return ""
}

// allFields reads an ErrorResponse's body, in order.
func allFields(body []byte) (out reportFieldList) {
	for len(body) > 1 {
		value, rest, ok := cutString(body[1:])
		if !ok {
			break
		}
		out, body = append(out, reportField{body[0], value}), rest
	}
	return out
}
