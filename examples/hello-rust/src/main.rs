//! A handler with AWS's own client: typed event in, typed result out.

use lambda_runtime::{Error, LambdaEvent, service_fn};
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct Reading {
    sensor: String,
    celsius: Vec<f64>,
}

#[derive(Serialize)]
struct Summary {
    message: String,
    mean: f64,
    warmest: f64,
    request_id: String,
}

async fn summarise(event: LambdaEvent<Reading>) -> Result<Summary, Error> {
    let Reading { sensor, celsius } = event.payload;
    let warmest = celsius.iter().copied().reduce(f64::max).ok_or("there are no readings")?;
    let mean = celsius.iter().sum::<f64>() / celsius.len() as f64;
    println!("{} readings of {sensor}", celsius.len());
    Ok(Summary { message: format!("{sensor}: {mean:.1} °C"), mean, warmest, request_id: event.context.request_id })
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    lambda_runtime::run(service_fn(summarise)).await
}
