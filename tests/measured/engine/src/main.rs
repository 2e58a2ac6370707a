//! Plays the part of kata-agent that asks the guest policy: each line of standard input is one JSON message, each line of
//! standard output its answer.
//!
//! `{"policy": TEXT}` starts anew with this policy. `{"kind": NAME, "request": OBJECT}` asks it; the answer is
//! `{"allowed": BOOL}`, or `{"allowed": false, "error": TEXT}` where the agent would refuse because evaluation failed.
//! `{"eval": QUERY}` evaluates any query. State is kept between requests as the agent keeps it: under `data.pstate`, changed
//! by the JSON patches that rules answer with, and also when the request later fails.

use std::io::{self, BufRead, Write};
use std::num::{NonZeroU32, NonZeroUsize};

use regorus::{Engine, PolicyLengthConfig, Value};
use serde_json::{json, Value as Json};

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let mut engine = new_engine()?;
    let mut output = io::stdout().lock();
    for line in io::stdin().lock().lines() {
        let message: Json = serde_json::from_str(&line?)?;
        let answer = match answer(&mut engine, &message) {
            Ok(answer) => answer,
            Err(error) => json!({"allowed": false, "error": error.to_string()}),
        };
        writeln!(output, "{answer}")?;
        output.flush()?;
    }
    Ok(())
}

fn answer(engine: &mut Engine, message: &Json) -> Result<Json, Failure> {
    if let Some(policy) = message["policy"].as_str() {
        *engine = new_engine()?;
        engine.add_policy("agent_policy".to_string(), policy.to_string())?;
        return Ok(json!({"loaded": true}));
    }
    if let Some(query) = message["eval"].as_str() {
        engine.set_input_json(&message["request"].to_string())?;
        let results = engine.eval_query(query.to_string(), false)?;
        let values: Vec<Json> = results.result.iter().flat_map(|one| &one.expressions)
            .map(|one| serde_json::from_str(&one.value.to_string()).unwrap_or(Json::Null)).collect();
        return Ok(json!({"values": values}));
    }
    let kind = message["kind"].as_str().ok_or("a message has policy, or kind and request")?;
    allow(engine, kind, &message["request"]).map(|allowed| json!({"allowed": allowed}))
}

fn new_engine() -> Result<Engine, Failure> {
    let mut engine = Engine::new();
    engine.set_strict_builtin_errors(false);
    engine.set_policy_length_config(PolicyLengthConfig {
        max_col: NonZeroU32::new(1024).ok_or("zero")?,
        max_file_bytes: NonZeroUsize::new(1024 * 1024).ok_or("zero")?,
        max_lines: NonZeroUsize::new(20_000).ok_or("zero")?,
    });
    engine.add_data(Value::from_json_str(r#"{"pstate": {}}"#)?)?;
    Ok(engine)
}

fn allow(engine: &mut Engine, kind: &str, request: &Json) -> Result<bool, Failure> {
    engine.set_input_json(&request.to_string())?;
    let results = engine.eval_query(format!("data.agent_policy.{kind}"), false)?;
    let [result] = &results.result[..] else { return Err("the rule is undefined".into()) };
    let [expression] = &result.expressions[..] else { return Err("the rule has several values".into()) };
    match &expression.value {
        Value::Bool(allowed) => Ok(*allowed),
        Value::Object(_) => {
            let answer: Json = serde_json::from_str(&expression.value.to_string())?;
            let allowed = answer["allowed"].as_bool().ok_or("the rule's answer has no allowed")?;
            if allowed && !answer["ops"].is_null() {
                let patch: json_patch::Patch = serde_json::from_value(answer["ops"].clone())?;
                let mut state: Json = serde_json::from_str(&engine.get_data().to_string())?;
                json_patch::patch(&mut state, &patch)?;
                engine.clear_data();
                engine.add_data(Value::from_json_str(&state.to_string())?)?;
            }
            Ok(allowed)
        }
        _ => Err("the rule's value is neither a boolean nor an object".into()),
    }
}
